"""BERT and RoBERTa are the functions that transformers computes in torch, to float32's rounding; also without torch, from a stored file."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from others import others
from text_networks import CLOSE, CONFIGS, as_torch, named, run, texts, torch_network, write

from jaxtickets import masks
from jaxtickets.errors import CheckpointError
from jaxtickets.models import (
    ENCODER_KERNELS,
    Encoder,
    MaskedLM,
    TextClassifier,
    TransformerConfig,
    read_checkpoint,
    save_pretrained,
)
from jaxtickets.models.checkpoint_names import encoder_tensors, head_tensors, pooler_tensors
from jaxtickets.tracing.flops import forward_flops

STORED = pathlib.Path(__file__).parent / "fixtures" / "text_models.npz"
FAMILIES = ["bert", "roberta"]


@pytest.fixture
def transformers():
    others("torch")
    return others("transformers")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("types", [True, False])
def test_every_layer_and_the_pooler_are_torchs(family, types, transformers, tmp_path):
    torch = others("torch")

    config = CONFIGS[family]
    net = torch_network("Model", config)
    net.save_pretrained(tmp_path)
    params = read_checkpoint(tmp_path).params["encoder"]
    x = texts(config, types=types)
    with torch.no_grad():
        theirs = net(**as_torch(x), output_hidden_states=True)
    ours = run(lambda p, x: Encoder(config).apply({"params": p}, x, train=False), params, x)
    assert len(ours.layers) == config.layers + 1 == len(theirs.hidden_states)
    for layer, wanted in zip(ours.layers, theirs.hidden_states, strict=True):
        np.testing.assert_allclose(layer, wanted.numpy(), **CLOSE)
    np.testing.assert_allclose(ours.pooled, theirs.pooler_output.numpy(), **CLOSE)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("classes", [3, None])
def test_logits_and_gradients_of_a_classifier_are_torchs(family, classes, transformers, tmp_path):
    torch = others("torch")

    config = CONFIGS[family]
    net = torch_network("ForSequenceClassification", config, classes or 1)
    net.save_pretrained(tmp_path)
    params = read_checkpoint(tmp_path, head="classifier").params
    if family == "roberta":
        params["encoder"].pop("pooler", None)
    model, x = TextClassifier(config, classes), texts(config)
    y = np.array([0, 2, 1, 2]) if classes else np.array([0.5, -1.0, 2.0, 0.0], np.float32)

    def loss(params, x):
        out = model.apply({"params": params}, x, train=False)
        each = (
            optax.softmax_cross_entropy_with_integer_labels(out, y) if classes else (out - y) ** 2
        )
        return jnp.mean(each), out

    (value, out), grads = run(jax.value_and_grad(loss, has_aux=True), params, x)
    theirs = net(**as_torch(x), labels=torch.from_numpy(y))
    theirs.loss.backward()
    np.testing.assert_allclose(out, theirs.logits.detach().numpy().reshape(out.shape), **CLOSE)
    np.testing.assert_allclose(value, theirs.loss.item(), rtol=1e-5)
    by_name = dict(net.named_parameters())
    by_path = dict(zip(masks.leaf_paths(grads), jax.tree.leaves(grads), strict=True))
    tensors = {
        f"{family}.{t.name}": t
        for t in encoder_tensors(config) + (pooler_tensors(config) if family == "bert" else [])
    }
    tensors |= {t.name: t for t in head_tensors(config, "classifier", classes or 1)}
    assert set(by_name) == set(tensors)
    for name, tensor in tensors.items():
        wanted = by_name[name].grad.numpy()
        # Gradients sum over all tokens and back through all layers: of order 1 to 10.
        np.testing.assert_allclose(
            by_path[tensor.path],
            wanted.T if tensor.transposed else wanted,
            rtol=1e-4,
            atol=3e-5,
            err_msg=name,
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_masked_language_model_is_torchs(family, transformers, tmp_path):
    torch = others("torch")

    config = CONFIGS[family]
    net = torch_network("ForMaskedLM", config)
    net.save_pretrained(tmp_path)
    params = read_checkpoint(tmp_path, head="masked_lm").params
    x = texts(config)
    with torch.no_grad():
        theirs = net(**as_torch(x)).logits.numpy()
    ours = run(lambda p, x: MaskedLM(config).apply({"params": p}, x, train=False), params, x)
    assert ours.shape == (4, 12, config.vocabulary)
    np.testing.assert_allclose(ours, theirs, **CLOSE)
    written = save_pretrained(params, config, tmp_path / "written")
    back = transformers.AutoModelForMaskedLM.from_pretrained(written).eval()
    with torch.no_grad():
        np.testing.assert_array_equal(back(**as_torch(x)).logits.numpy(), theirs)


def make_stored():
    """Writes the stored file: `python tests/models/test_text_transformer.py`, with torch and transformers installed."""
    torch = others("torch")

    arrays = {}
    for family in FAMILIES:
        for head, kind in (
            ("classifier", "ForSequenceClassification"),
            ("masked_lm", "ForMaskedLM"),
        ):
            net, x = torch_network(kind, CONFIGS[family]), texts(CONFIGS[family])
            with torch.no_grad():
                arrays[f"{family} {head} logits"] = net(**as_torch(x)).logits.numpy()
            arrays |= {f"{family} {head} {name}": value for name, value in named(net).items()}
    STORED.parent.mkdir(exist_ok=True)
    np.savez_compressed(STORED, **arrays)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", ["classifier", "masked_lm"])
def test_stored_outputs_of_torch_come_out_without_torch(family, head, tmp_path):
    config = CONFIGS[family]
    with np.load(STORED, allow_pickle=False) as stored:
        tensors = {
            name.split(" ", 2)[2]: stored[name]
            for name in stored
            if name.startswith(f"{family} {head} ")
        }
    logits = tensors.pop("logits")
    params = read_checkpoint(write(tmp_path / "stored", config, tensors), head=head).params
    model = TextClassifier(config, 3) if head == "classifier" else MaskedLM(config)
    ours = run(lambda p, x: model.apply({"params": p}, x, train=False), params, texts(config))
    np.testing.assert_allclose(ours, logits, **CLOSE)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_prunable_is_what_the_paper_prunes(family):
    config = CONFIGS[family]
    model = TextClassifier(config)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), texts(config), train=False))[
        "params"
    ]
    may = masks.prunable(shapes, ENCODER_KERNELS)
    paths = {
        path
        for path, yes in zip(masks.leaf_paths(shapes), jax.tree.leaves(may), strict=True)
        if yes
    }
    parts = ("query", "key", "value", "attention_output", "intermediate", "output")
    wanted = {f"encoder/layer_{i}/{part}/kernel" for i in range(config.layers) for part in parts}
    assert paths == wanted | ({"encoder/pooler/kernel"} if family == "bert" else set())


def test_of_bert_base_the_paper_prunes_85_million_weights():
    model = TextClassifier(TransformerConfig())
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), texts(TransformerConfig()), train=False)
    )["params"]
    may = masks.prunable(shapes, ENCODER_KERNELS)
    weights = sum(
        leaf.size
        for leaf, yes in zip(jax.tree.leaves(shapes), jax.tree.leaves(may), strict=True)
        if yes
    )
    assert weights == 12 * (4 * 768**2 + 2 * 768 * 3072) + 768**2


def test_the_forward_flops_of_a_layer_are_those_of_the_formula():
    tokens, c = 16, CONFIGS["bert"]
    x = {
        name: jax.ShapeDtypeStruct((2, tokens), jnp.int32)
        for name in ("input_ids", "attention_mask")
    }
    model = TextClassifier(c)
    params = jax.eval_shape(
        lambda: model.init(
            jax.random.key(0), jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), x), train=False
        )
    )["params"]
    flops = forward_flops(
        lambda p, x: model.apply({"params": p}, x, train=False), params, x, batch=2
    )
    layer = {
        path: n for path, n in flops.by_path.items() if path.startswith("encoder/layer_1/") and n
    }
    square, wide = 2 * tokens * c.width**2, 2 * tokens * c.width * c.intermediate
    kernels = {
        "query": square,
        "key": square,
        "value": square,
        "attention_output": square,
        "intermediate": wide,
        "output": wide,
    }
    assert layer == {f"encoder/layer_1/{part}/kernel": n for part, n in kernels.items()}
    # Of the last layer a classifier wants the first token: keys and values are of all of them, the rest is of one.
    last = {
        path: n
        for path, n in flops.by_path.items()
        if path.startswith(f"encoder/layer_{c.layers - 1}/") and n
    }
    short = {part: n if part in ("key", "value") else n // tokens for part, n in kernels.items()}
    assert last == {f"encoder/layer_{c.layers - 1}/{part}/kernel": n for part, n in short.items()}
    # Scores and the weighted sum of values: heads x tokens^2 x (width / heads), each.
    attention = 4 * tokens**2 * c.width
    assert flops.other == (c.layers - 1) * attention + attention // tokens
    assert flops.by_path["encoder/pooler/kernel"] == 2 * c.width**2
    full = (c.layers - 1) * (sum(kernels.values()) + attention)
    assert (
        flops.total
        == full + sum(short.values()) + attention // tokens + 2 * c.width**2 + 2 * c.width * 2
    )
    assert flops.inexact == ()


def fresh(model, x):
    return run(lambda key: model.init(key, x, train=False), jax.random.key(0))


def test_integers_of_any_dtype_are_the_same_text():
    config = CONFIGS["roberta"]
    model, x = TextClassifier(config), texts(config)
    params = fresh(model, x)
    dtypes = [
        {},
        {"input_ids": np.int32, "attention_mask": bool, "token_type_ids": np.uint8},
        dict.fromkeys(x, np.int16),
    ]
    batches = [{n: v.astype(kinds.get(n, v.dtype)) for n, v in x.items()} for kinds in dtypes]
    outs = run(
        lambda p, *batches: [model.apply(p, x, train=False) for x in batches], params, *batches
    )
    for other in outs[
        1:
    ]:  # three copies in one program are fused in different ways: a unit in the last place
        np.testing.assert_allclose(outs[0], other, rtol=1e-5, atol=1e-7)


def test_a_token_beyond_the_vocabulary_is_not_taken_for_another():
    config = CONFIGS["bert"]
    model, x = TextClassifier(config), texts(config)
    params = fresh(model, x)
    x["input_ids"][1, 2] = config.vocabulary
    out = run(lambda p, x: model.apply(p, x, train=False), params, x)
    assert np.isnan(out[1]).all()
    assert np.isfinite(out[[0, 2, 3]]).all()


def test_bfloat16_computes_products_in_bfloat16_and_softmax_and_norms_in_float32():
    config = CONFIGS["bert"]
    model, x = TextClassifier(config, 3, jnp.bfloat16), texts(config)
    params = fresh(model, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    equations = list(
        _equations(jax.make_jaxpr(lambda p: model.apply(p, x, train=False))(params).jaxpr)
    )
    products = [eqn for eqn in equations if eqn.primitive.name == "dot_general"]
    assert len(products) == config.layers * 8 + 2
    assert all(v.aval.dtype == jnp.bfloat16 for eqn in products[:-1] for v in eqn.invars)
    for name in ("exp", "rsqrt"):
        found = [eqn.invars[0].aval.dtype for eqn in equations if eqn.primitive.name == name]
        assert len(found) >= config.layers
        assert set(found) == {jnp.dtype("float32")}
    out, full = run(
        lambda p: [m.apply(p, x, train=False) for m in (model, model.copy(dtype=jnp.float32))],
        params,
    )
    assert out.dtype == jnp.float32
    # Weights of 0.02 make logits of about 0.1; bfloat16 keeps 8 bits of what is added up to them.
    np.testing.assert_allclose(out, full, atol=0.01)
    assert not np.array_equal(out, full)


def _equations(jaxpr):
    from jaxtickets.tracing.jaxprs import subjaxprs

    for eqn in jaxpr.eqns:
        yield eqn
        for sub in subjaxprs(eqn):
            yield from _equations(sub)


def call(config=CONFIGS["bert"], **changed):
    x = {name: value for name, value in (texts(config) | changed).items() if value is not None}
    return jax.eval_shape(lambda: TextClassifier(config).init(jax.random.key(0), x, train=False))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: call(**texts(CONFIGS["bert"], 19)), "19 tokens .* 18 positions"),
        (
            lambda: call(CONFIGS["roberta"], **texts(CONFIGS["roberta"], 16)),
            "16 tokens .* 15 positions",
        ),
        (
            lambda: call(attention_mask=None),
            r"'attention_mask'.*got \['input_ids', 'token_type_ids'\]",
        ),
        (lambda: call(token_types=np.zeros((4, 12), int)), "got .*'token_types'"),
        (lambda: call(attention_mask=np.zeros((4, 11), int)), r"attention_mask int\d+\[4, 11\]"),
        (
            lambda: call(attention_mask=np.zeros((4, 12), np.float32)),
            r"attention_mask float32\[4, 12\]",
        ),
        (lambda: call(input_ids=np.zeros(12, int)), r"input_ids int\d+\[12\]"),
        (lambda: TextClassifier(CONFIGS["bert"], 0), "num_classes .*got 0"),
        (lambda: TextClassifier(CONFIGS["bert"], True), "num_classes .*got True"),
        (lambda: TransformerConfig(heads=5), "5 heads and a width of 768"),
        (lambda: TransformerConfig(layers=0), "layers is an integer from 1 to 1000; got 0"),
        (lambda: TransformerConfig(dropout=1.0), r"dropout is a number in \[0, 1\); got 1.0"),
        (
            lambda: TransformerConfig(eps=float("nan")),
            "eps is a number above 0, at most 100; got nan",
        ),
        (lambda: TransformerConfig("gpt"), "'bert', 'roberta'; got 'gpt'"),  # pyright: ignore[reportArgumentType]
        (lambda: TransformerConfig(padding=30522), "below the vocabulary of 30522; got 30522"),
        (
            lambda: TransformerConfig("roberta", positions=2, padding=1),
            "no room for a token: 2, of which the first 2",
        ),
    ],
)
def test_errors_say_what_is_wrong(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"model_type": "electra"},
            "a.json: model_type is 'electra'; supported are 'bert', 'roberta'",
        ),
        ({"model_type": None}, "a.json: has no model_type"),
        (
            {"position_embedding_type": "relative_key"},
            "a.json: position_embedding_type is 'relative_key'; supported is 'absolute'",
        ),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"hidden_act": "geglu"}, "hidden_act: activation is one of gelu, .*; got 'geglu'"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads is"),
        ({"hidden_size": 770}, "a.json: num_attention_heads: .*12 heads and a width of 770"),
        ({"hidden_size": "768"}, "hidden_size: width .*'768'"),
        ({"hidden_dropout_prob": -1}, "hidden_dropout_prob: .*-1"),
        ({"num_hidden_layers": 1e400}, "num_hidden_layers: .*inf"),
    ],
)
def test_other_architectures_and_settings_are_refused_by_file_and_field(changed, words):
    with pytest.raises(CheckpointError, match=words):
        TransformerConfig.from_hf(TransformerConfig().to_hf() | changed, "a.json")


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_config_file_leaves_out_is_what_transformers_takes(family, transformers):
    theirs = {"bert": transformers.BertConfig, "roberta": transformers.RobertaConfig}[family]()
    assert TransformerConfig.from_hf({"model_type": family}) == TransformerConfig.from_hf(
        theirs.to_dict()
    )


if __name__ == "__main__":
    make_stored()
