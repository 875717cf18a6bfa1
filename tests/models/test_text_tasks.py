"""Tasks of texts: regression, fine-tuning from a checkpoint, guessing masked tokens; each also through `fit`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from others import others
from text_networks import CONFIGS, run, texts, torch_network, write

import jaxtickets as jt
from jaxtickets import masks
from jaxtickets.dataset import Dataset
from jaxtickets.errors import CheckpointError
from jaxtickets.models import (
    ENCODER_KERNELS,
    LeNet,
    MaskedLM,
    MaskTokens,
    TextClassifier,
    TransformerConfig,
    TreeNet,
    read_checkpoint,
)
from jaxtickets.models.checkpoint_names import encoder_tensors, head_tensors, pooler_tensors

TINY = TransformerConfig(
    vocabulary=12, layers=1, width=8, heads=2, intermediate=12, positions=8, initial_scale=0.1
)


def checkpoint(folder, config=TINY, pooler=True, head=None):
    draw = np.random.default_rng(0)
    tensors = (
        encoder_tensors(config)
        + (pooler_tensors(config) if pooler else [])
        + (head_tensors(config, head) if head else [])
    )
    return write(
        folder, config, {t.name: draw.normal(0, 0.2, t.shape).astype(np.float32) for t in tensors}
    )


def sentences(examples=32, seed=0, **more):
    """Texts of 4 to 8 tokens; the label is whether token 7 is among them."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(4, 9, examples)
    ids = draw.integers(3, 12, (examples, 8)) * (np.arange(8) < lengths[:, None])
    x = {"input_ids": ids.astype(np.uint16), "attention_mask": (ids > 0).astype(np.uint8)}
    return x, (ids == 7).any(1).astype(np.int32)


def short_plan(epochs, batch_size, width=2, sparsity=0.0):
    train = jt.plan.Train(epochs, jt.schedules.Constant(0.01), optimizer=jt.plan.Adam())
    return jt.Plan(
        "short", (jt.plan.Start(width, sparsity), train, jt.plan.Collect()), batch_size=batch_size
    )


def paths(tree):
    return dict(zip(masks.leaf_paths(tree), jax.tree.leaves(tree), strict=True))


def test_regression_is_the_squared_error_of_any_model(key):
    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.Dense(1)(x)

    x, y = jax.random.normal(key, (5, 3)), jnp.arange(5)
    task = jt.regression(Net())
    params, state = task.init(key, x)
    outputs, _ = task.apply(params, state, x, False, None)
    assert task.num_classes is None
    assert task == jt.regression(Net())
    wanted = np.asarray(x) @ np.asarray(params["Dense_0"]["kernel"])[:, 0]
    np.testing.assert_allclose(task.log_proba(outputs), wanted, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(
        task.loss(outputs.astype(jnp.bfloat16), y),
        (wanted - np.arange(5)) ** 2,
        rtol=0.05,
        atol=0.02,
    )  # 8 bits
    assert task.loss(outputs.astype(jnp.bfloat16), y).dtype == jnp.float32


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (
            lambda: jt.regression(LeNet()),
            ValueError,
            "tells 10 classes apart. Give it num_classes=None, or write classification",
        ),
        (lambda: jt.regression(TreeNet(LeNet(), 2)), TypeError, "TreeNet has several heads"),
        (lambda: jt.regression("LeNet"), TypeError, "regression: model must be .*'LeNet'"),
        (
            lambda: jt.regression(LeNet()).loss(jnp.zeros((4, 2)), jnp.zeros(4)),
            ValueError,
            "10 classes",
        ),
        (
            lambda: jt.regression((len, len)).loss(jnp.zeros((4, 2)), jnp.zeros(4)),
            ValueError,
            r"shape \[4, 2\]; one number .*\[B\] or \[B, 1\]",
        ),
        (
            lambda: jt.classification(TextClassifier(TINY, None)),
            ValueError,
            "num_classes is needed",
        ),
        (lambda: MaskTokens(12, 12), ValueError, r"from 0 to 11; got \[12\]"),
        (lambda: MaskTokens(3, 12, share=0.0), ValueError, r"share must be in \(0, 1\), got 0.0"),
    ],
)
def test_errors_say_what_to_write(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_a_text_classifier_is_a_model_like_others(tmp_path):
    task = jt.classification(TextClassifier(TINY))
    x, y = sentences()
    plan = short_plan(2, 8, sparsity=0.5)
    tickets = jt.fit(plan, task, Dataset(x, y, 2), key=0, progress=False)
    assert task.name == "TextClassifier(bert 1x8)"
    assert tickets.predict_proba(x).shape == (32, 2)
    np.testing.assert_allclose(tickets.predict_proba(x).sum(-1), 1, rtol=1e-5)
    tickets.save(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(
        jt.load(tmp_path / "a.safetensors", task).predict_proba(x), tickets.predict_proba(x)
    )


@pytest.mark.parametrize("config", [TINY, CONFIGS["roberta"]], ids=str)
def test_fine_tuning_starts_from_the_body_and_a_fresh_head(config, tmp_path):
    read = read_checkpoint(checkpoint(tmp_path / "a", config))
    task = jt.fine_tuning(read, 40)
    x = {name: np.zeros((1, 5), np.int32) for name in ("input_ids", "attention_mask")}
    params, state = task.init(jax.random.key(0), x)
    assert state == {}
    given = {
        path: leaf
        for path, leaf in paths(read.params).items()
        if config.family == "bert" or "pooler" not in path
    }
    drawn = paths(params)
    assert {path for path in drawn if path.startswith("encoder/")} == set(given)
    for path, leaf in given.items():
        np.testing.assert_array_equal(drawn[path], leaf, err_msg=path)
    heads = {path: np.asarray(leaf) for path, leaf in drawn.items() if path.startswith("head/")}
    wanted = {"head/classifier/kernel", "head/classifier/bias"}
    assert set(heads) == wanted | (
        {"head/dense/kernel", "head/dense/bias"} if config.family == "roberta" else set()
    )
    for path, leaf in heads.items():
        if path.endswith("bias"):
            assert not leaf.any()
        else:  # 5 deviations of a mean and a standard deviation: 6e-7 each
            assert abs(leaf.mean()) < 5 * config.initial_scale / np.sqrt(leaf.size)
            assert abs(leaf.std() / config.initial_scale - 1) < 5 / np.sqrt(2 * leaf.size)
    again, other = (paths(task.init(jax.random.key(k), x)[0]) for k in (0, 1))
    np.testing.assert_array_equal(again["head/classifier/kernel"], heads["head/classifier/kernel"])
    assert not np.array_equal(other["head/classifier/kernel"], heads["head/classifier/kernel"])
    # Compiled and for several members at once, as the engine does it.
    together = jax.jit(jax.vmap(lambda key: task.init(key, x)[0]))(
        jax.vmap(jax.random.key)(jnp.arange(2))
    )
    for i, alone in enumerate((drawn, other)):
        for path, leaf in paths(together).items():
            if path in given:
                np.testing.assert_array_equal(leaf[i], alone[path], err_msg=path)
            else:  # normal numbers of two programs, which round otherwise
                np.testing.assert_allclose(leaf[i], alone[path], rtol=1e-6, atol=1e-7, err_msg=path)
    may = masks.prunable(params, task.prunable)
    assert task.prunable == ENCODER_KERNELS
    assert sum(jax.tree.leaves(may)) == 6 * config.layers + (config.family == "bert")


def test_the_pretrained_weights_are_no_part_of_the_compiled_program(tmp_path):
    big = TransformerConfig(
        vocabulary=5000, layers=1, width=8, heads=2, intermediate=12, positions=8
    )
    task = jt.fine_tuning(checkpoint(tmp_path / "a", big))
    x = {name: np.zeros((1, 5), np.int32) for name in ("input_ids", "attention_mask")}
    assert len(jax.jit(lambda key: task.init(key, x)).lower(jax.random.key(0)).as_text()) < 5000 * 8


def test_tasks_are_equal_for_equal_checkpoints_and_named_by_them(tmp_path):
    folder = checkpoint(tmp_path / "tiny-bert")
    tasks = [
        jt.fine_tuning(read_checkpoint(folder)),
        jt.fine_tuning(str(folder)),
        jt.fine_tuning(folder, 3),
        jt.fine_tuning(folder, None),
    ]
    assert tasks[0] == tasks[1]
    assert hash(tasks[0]) == hash(tasks[1])
    assert len(set(tasks)) == 3
    assert [task.name for task in tasks[1:]] == [
        "fine_tuning(tiny-bert, 2)",
        "fine_tuning(tiny-bert, 3)",
        "fine_tuning(tiny-bert, regression)",
    ]
    assert [task.num_classes for task in tasks[1:]] == [2, 3, None]


def test_a_bert_without_a_pooler_draws_one_only_if_told(tmp_path):
    folder = checkpoint(tmp_path / "a", pooler=False)
    with pytest.raises(
        CheckpointError, match=r"a: has no pooler, which BERT's head reads.*new_pooler=True"
    ):
        jt.fine_tuning(folder)
    x = {name: np.zeros((1, 5), np.int32) for name in ("input_ids", "attention_mask")}
    params, _ = jt.fine_tuning(folder, new_pooler=True).init(jax.random.key(0), x)
    assert np.std(params["encoder"]["pooler"]["kernel"]) > 0.01
    roberta = checkpoint(tmp_path / "b", CONFIGS["roberta"], pooler=False)
    jt.fine_tuning(roberta)


@pytest.mark.parametrize("classes", [2, None])
def test_fine_tuning_learns_and_its_tickets_are_pruned_where_the_paper_prunes(classes, tmp_path):
    task = jt.fine_tuning(checkpoint(tmp_path / "a"), classes)
    x, y = sentences(64)
    y = y if classes else (3 * y - 1).astype(np.float32)
    plan = short_plan(20, 16, sparsity=0.3)
    tickets = jt.fit(plan, task, Dataset(x, y, classes), key=0, progress=False)
    predicted = tickets.predict(x) if classes else tickets.log_proba(x)
    if classes:
        assert (predicted == y).mean() > 0.9
    else:
        assert np.mean((predicted - y) ** 2) < 0.3 * np.var(y)
        np.testing.assert_allclose(
            predicted, tickets.member_log_proba(x).mean(0), rtol=1e-5, atol=1e-6
        )
    for ticket in tickets:
        for path, mask in paths(ticket.mask).items():
            pruned = path.endswith("kernel") and path.startswith("encoder/")
            assert (np.ndim(mask) > 0) == pruned


# Masked language modelling


def test_masking_is_80_10_10_of_15_percent_and_never_of_special_tokens():
    hide = MaskTokens(103, 30522, special=(0, 101, 102))
    draw = np.random.default_rng(0)
    ids = draw.integers(1000, 30000, (64, 512))
    ids[:, 0], ids[:, 100], ids[32:, 300:] = 101, 102, 0
    x = {
        "input_ids": ids.astype(np.uint16),
        "attention_mask": ids != 0,
        "token_type_ids": np.zeros_like(ids),
    }
    out = jax.device_get(jax.jit(hide)(jax.random.key(0), x))
    assert out["input_ids"].dtype == np.uint16
    assert out["labels"].dtype == np.int32
    assert set(out) == {*x, "labels"}
    ordinary, chosen = ids >= 1000, out["labels"] != -100
    assert not (chosen & ~ordinary).any()
    np.testing.assert_array_equal(out["labels"][chosen], ids[chosen])
    np.testing.assert_array_equal(out["input_ids"][~chosen], ids[~chosen])

    def near(hits, among, share):  # 5 deviations: a false alarm of 6e-7 each
        assert abs(hits / among - share) < 5 * np.sqrt(share * (1 - share) / among)

    near(chosen.sum(), ordinary.sum(), 0.15)
    shown, count = out["input_ids"][chosen], chosen.sum()
    near((shown == 103).sum(), count, 0.8)
    near((shown == ids[chosen]).sum(), count, 0.1)
    other = shown[(shown != 103) & (shown != ids[chosen])]
    near(other.size, count, 0.1)
    near((other < 15261).sum(), other.size, 0.5)
    assert np.unique(other).size > 0.95 * other.size  # of 30,522 tokens, drawn 450 times
    again = jax.device_get(hide(jax.random.key(1), x))
    assert (again["labels"] != out["labels"]).any()


def test_masking_does_not_depend_on_padding_and_is_a_hashable_function():
    hide = MaskTokens(3, 60, special=[0, 1])  # pyright: ignore[reportArgumentType]
    assert hide == MaskTokens(3, 60, special=(0, 1))
    assert hash(hide) == hash(MaskTokens(3, 60, special=(0, 1)))
    short, long = (hide(jax.random.key(2), texts(CONFIGS["bert"], tokens)) for tokens in (12, 18))
    for name in short:
        np.testing.assert_array_equal(short[name], long[name][:, :12])
    assert (short["labels"] != -100).any()


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_the_loss_is_torchs_mean_over_all_guesses(family, tmp_path):
    torch = others("torch")
    others("transformers")
    config = CONFIGS[family]
    net = torch_network("ForMaskedLM", config)
    net.save_pretrained(tmp_path / "net")
    task = jt.masked_language_modelling(read_checkpoint(tmp_path / "net", head="masked_lm"))
    x = texts(config)
    labels = np.where(
        (np.arange(48).reshape(4, 12) % 3 == 0) & (x["attention_mask"] > 0),
        x["input_ids"].astype(np.int64),
        -100,
    )
    x["labels"] = labels
    params, state = task.init(jax.random.key(0), x)
    outputs, _ = run(lambda p, x: task.apply(p, state, x, False, None), params, x)
    theirs = net(
        **{name: torch.from_numpy(np.asarray(value).astype(np.int64)) for name, value in x.items()}
    )
    each = task.loss(outputs, jnp.zeros(4))
    assert each.shape == (4,)
    np.testing.assert_allclose(each.mean(), theirs.loss.item(), rtol=1e-5)
    for i in range(4):
        log_proba = torch.log_softmax(theirs.logits[i], -1).detach().numpy()
        guessed = labels[i] >= 0
        wanted = (
            log_proba[np.arange(12)[guessed], labels[i][guessed]].mean() if guessed.any() else 0.0
        )
        np.testing.assert_allclose(task.log_proba(outputs)[i], wanted, rtol=1e-5)
    nothing = outputs | {"labels": np.full_like(labels, -100)}
    np.testing.assert_array_equal(task.loss(nothing, jnp.zeros(4)), 0)


def test_guessing_masked_tokens_is_learned_saved_and_fine_tuned(tmp_path):
    """Texts that count up: a hidden token follows from its neighbours."""
    draw = np.random.default_rng(0)
    ids = 3 + (draw.integers(0, 9, (128, 1)) + np.arange(8)) % 9
    x = {
        "input_ids": ids.astype(np.uint16),
        "attention_mask": np.ones_like(ids, np.uint8),
        "labels": ids.astype(np.int32),
    }
    config = TransformerConfig(
        vocabulary=12,
        layers=1,
        width=16,
        heads=2,
        intermediate=32,
        positions=8,
        dropout=0.0,
        initial_scale=0.1,
    )
    task = jt.masked_language_modelling(config)
    hide = MaskTokens(2, 12, special=(0, 1, 2), share=0.3)
    data = Dataset(x, np.zeros(128, np.float32), None, augment=hide)
    plan = short_plan(40, 32, width=1)
    tickets = jt.fit(plan, task, data, key=0, progress=False)
    held = jax.device_get(hide(jax.random.key(9), x))
    before = task.init(jax.random.key(0), x)[0]
    values = [
        np.mean(task.log_proba(task.apply(p, {}, held, False, None)[0]))
        for p in (before, tickets.tickets[0].params)
    ]
    assert values[0] < -2  # the logarithm of one in twelve is -2.5
    assert values[1] > -0.8
    folder = jt.save_pretrained(tickets.tickets[0], config, tmp_path / "pretrained")
    tuned = jt.fine_tuning(folder, new_pooler=True).init(
        jax.random.key(0), {n: x[n][:1] for n in ("input_ids", "attention_mask")}
    )[0]
    np.testing.assert_array_equal(
        tuned["encoder"]["word"]["embedding"],
        tickets.tickets[0].params["encoder"]["word"]["embedding"],
    )


def test_a_masked_language_model_starts_from_a_checkpoint_with_or_without_its_head(tmp_path):
    folder = checkpoint(tmp_path / "a", pooler=False, head="masked_lm")
    x = {name: np.zeros((1, 5), np.int32) for name in ("input_ids", "attention_mask", "labels")}
    with_head, without = (read_checkpoint(folder, head=head) for head in ("masked_lm", None))
    assert with_head != without
    ours = paths(jt.masked_language_modelling(with_head).init(jax.random.key(0), x)[0])
    for path, leaf in paths(with_head.params).items():
        np.testing.assert_array_equal(ours[path], leaf, err_msg=path)
    fresh = paths(jt.masked_language_modelling(without).init(jax.random.key(0), x)[0])
    assert set(fresh) == set(ours)
    np.testing.assert_array_equal(fresh["encoder/word/embedding"], ours["encoder/word/embedding"])
    assert not fresh["head/bias"].any()
    scratch = jt.masked_language_modelling(TINY)
    assert scratch == jt.masked_language_modelling(TINY)
    # normal numbers of two programs, which round otherwise
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7),
        scratch.init(jax.random.key(0), x)[0],
        jax.jit(lambda key: MaskedLM(TINY).init(key, x, train=False)["params"])(jax.random.key(0)),
    )
    with pytest.raises(
        ValueError,
        match=r"x needs 'labels', -100 where nothing is guessed; got \['attention_mask', 'input_ids'\]",
    ):
        scratch.apply(
            {}, {}, {name: x[name] for name in ("input_ids", "attention_mask")}, False, None
        )
