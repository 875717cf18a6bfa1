"""From JPEG files to tickets and scores: streams through `fit` and `evaluate`, and the ImageNet experiment."""

import dataclasses
import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from others import others
from PIL import Image
from scipy.special import log_softmax

import jaxtickets as jt
from jaxtickets import masks
from jaxtickets.evaluation import EvaluationError, restrict
from jaxtickets.plan import Train

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
CLASSES = ("dark", "green", "red")
SIZE = 8


def compile_quickly(folder):
    jax.config.update("jax_disable_most_optimizations", folder is not None)
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0 if folder is None else 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0 if folder is None else -1)


@pytest.fixture(scope="module", autouse=True)
def quick_compiles(tmp_path_factory):
    """Tiny programs are compiled quickly rather than well, and once for all tests here."""
    compile_quickly(str(tmp_path_factory.mktemp("compiled")))
    yield
    compile_quickly(None)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Pictures of one colour each, about."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    colours = {"dark": (40, 40, 40), "green": (60, 170, 60), "red": (180, 60, 60)}
    for part, count in (("train", 8), ("val", 5)):
        for name, colour in colours.items():
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.asarray(colour) + rng.normal(0, 40, (20, 24, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
                    root / part / name / f"{i}.JPEG", quality=95
                )
    return root


def init(key, x):
    first, second = jax.random.split(key)
    inputs = x.shape[1] * x.shape[2] * x.shape[3]
    params = {
        "w1": 0.1 * jax.random.normal(first, (inputs, 12)),
        "w2": 0.3 * jax.random.normal(second, (12, len(CLASSES))),
    }
    return params, {}


def apply(params, state, x, train, key):
    return jnp.tanh(x.reshape(x.shape[0], -1) @ params["w1"]) @ params["w2"], state


TASK = jt.classification((init, apply), num_classes=len(CLASSES), name="perceptron")
PLAN = jt.edst(
    2, 0.5, explore=1.5, refine=2, lr=0.05, refine_lr=(0.05, 0.01), update_every=3, batch_size=6
)


class Stopped(BaseException):
    """As a keyboard interrupt."""


@dataclasses.dataclass(frozen=True, eq=False)
class Watched(jt.data.ImageStream):
    """Notes where reading begins, and stops at a batch."""

    stop_at: int = -1
    began: list = dataclasses.field(default_factory=list)
    read: list = dataclasses.field(default_factory=list)

    def batches_from(self, seed, epoch, batch_size, first):
        self.began.append((epoch, first))
        for batch in super().batches_from(seed, epoch, batch_size, first):
            self.read.append(epoch)
            if len(self.read) == self.stop_at:
                raise Stopped
            yield batch

    def fingerprint(self):
        return "watched"


def watched(folders, **options: Any):
    train, _ = jt.data.imagenet(folders, size=SIZE)
    return Watched(train.pictures, "watched", SIZE, **options)


@pytest.fixture(scope="module")
def trained(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    return jt.fit(PLAN, TASK, watched(folders, workers=2), key=0, out=out, progress=False), out


def test_a_run_from_files_interrupted_in_an_epoch_ends_in_the_same_bits(trained, folders, tmp_path):
    """Epochs are four steps; the batch that fails is the third of the second epoch."""
    stream = watched(
        folders, stop_at=8, workers=0
    )  # one batch of one is read before training, to see its shape
    with pytest.raises(Stopped):
        jt.fit(PLAN, TASK, stream, key=0, out=tmp_path, checkpoint_every=0, progress=False)
    assert not (tmp_path / "tickets.safetensors").exists()
    again = watched(folders, workers=3)
    jt.fit(PLAN, TASK, again, key=0, out=tmp_path, progress=False)
    assert (tmp_path / "tickets.safetensors").read_bytes() == (
        trained[1] / "tickets.safetensors"
    ).read_bytes()
    # Batches that the first run had are not decoded again: reading goes on in the middle of the epoch.
    assert again.began[1] == (1, 2)
    assert again.read.count(1) == 2


def test_a_stream_is_evaluated_as_its_arrays_are(trained, folders):
    tickets, _ = trained
    _, val = jt.data.imagenet(folders, size=SIZE, workers=2)
    x = np.concatenate(list(val.in_order(15)))
    assert x.shape == (15, SIZE, SIZE, 3)
    streamed = tickets.member_log_proba(val, batch_size=4)  # the last batch holds three
    # Batches of another size are other sums in float32.
    np.testing.assert_allclose(streamed, tickets.member_log_proba(x), atol=1e-5)
    np.testing.assert_array_equal(streamed, tickets.member_log_proba(x, batch_size=4))
    a, b = (
        jt.evaluate(tickets, val, batch_size=4).to_dict(),
        jt.evaluate(tickets, (x, val.y), batch_size=4).to_dict(),
    )
    assert a == b
    assert a["ensemble"]["accuracy"] > 0.8  # colours are told apart
    np.testing.assert_array_equal(tickets.predict(val), tickets.predict(x))


def test_heads_of_streamed_tickets_are_members_too(trained, folders):
    def two(params, state, x, train, key):
        outputs, state = apply(params, state, x, train, key)
        return jnp.stack([outputs, -outputs]), state

    tickets, _ = trained
    both = dataclasses.replace(
        tickets, task=dataclasses.replace(TASK, apply=two, heads=2, name="two heads")
    )
    _, val = jt.data.imagenet(folders, size=SIZE)
    streamed = both.member_log_proba(val, batch_size=4)
    assert streamed.shape == (4, 15, 3)
    np.testing.assert_array_equal(
        streamed, both.member_log_proba(np.concatenate(list(val.in_order(4))), batch_size=4)
    )


def test_predictions_over_some_classes_are_the_softmax_of_their_logits():
    rng = np.random.default_rng(0)
    logits = rng.normal(
        0, 20, (3, 50, 1000)
    )  # most probabilities underflow in float32, and none in log space
    some = rng.choice(1000, 200, replace=False)
    got = restrict(log_softmax(logits, axis=-1).astype(np.float32), some)
    # float32 keeps log-probabilities of up to 150 to 8e-6.
    np.testing.assert_allclose(got, log_softmax(logits[..., some], axis=-1), atol=5e-5)
    np.testing.assert_allclose(np.exp(got).sum(-1), 1, atol=1e-12)
    assert np.isneginf(restrict([[np.log(0.5), np.log(0.5), -np.inf]], [0, 2])[0, 1])


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([0, 3], "0 to 2"),
        ([-1], "0 to 2"),
        ([1, 1], "different"),
        ([], "different"),
        ([[0, 1]], "one axis"),
        ([0.5], "integers"),
    ],
)
def test_classes_that_cannot_be_are_refused(classes, message):
    with pytest.raises(EvaluationError, match=message):
        restrict(np.log([[0.5, 0.25, 0.25]]), np.asarray(classes))


def test_an_example_whose_classes_are_all_impossible_is_refused():
    sure = [[0.0, -np.inf, -np.inf], [-np.inf, 0.0, -np.inf]]
    with pytest.raises(
        EvaluationError, match=r"1 predictions that are NaN or give all 2 classes probability 0"
    ):
        restrict(sure, [1, 2])


def test_a_set_with_some_of_the_classes_is_scored_over_those(trained, folders, tmp_path):
    tickets, _ = trained
    for name in ("red", "dark"):
        (tmp_path / name).symlink_to(folders / "val" / name)
    some = jt.data.image_test(tmp_path, CLASSES, size=SIZE, resize=round(SIZE * 256 / 224))
    assert some.classes is not None
    assert (some.classes.tolist(), some.y.tolist()) == ([0, 2], [0] * 5 + [1] * 5)
    _, val = jt.data.imagenet(folders, size=SIZE)
    rows = np.isin(val.y, [0, 2])
    x = np.concatenate(list(val.in_order(15)))[rows]
    proba = np.exp(tickets.member_log_proba(x).astype(np.float64))[..., [0, 2]]
    proba = (proba / proba.sum(-1, keepdims=True)).mean(0)
    found = jt.evaluate(tickets, some).ensemble
    assert found.accuracy == np.mean(proba.argmax(-1) == some.y)
    assert found.nll == pytest.approx(
        others("sklearn.metrics").log_loss(some.y, proba), rel=1e-5
    )  # float32 log-probabilities


@dataclasses.dataclass
class Short:
    """Promises more than it gives."""

    name: str = "short"
    classes: None = None

    @property
    def y(self):
        return np.zeros(5, np.int32)

    def __len__(self):
        return 5

    def in_order(self, batch_size):
        yield np.zeros((3, SIZE, SIZE, 3), np.float32)


def test_evaluation_streams_that_break_their_promise_are_named(trained, folders):
    with pytest.raises(jt.DataError, match="short has 5 examples and yields 3"):
        jt.evaluate(trained[0], Short())
    _, val = jt.data.imagenet(folders, size=SIZE + 1)
    with pytest.raises(
        jt.DataError,
        match=r"x is float32\[9, 9, 3\] per example; perceptron was trained on float32\[8, 8, 3\]",
    ):
        jt.evaluate(trained[0], val)
    with pytest.raises(jt.DataError, match="a Dataset, a Stream or a pair"):
        jt.fit(PLAN, TASK, val, key=0)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    return importlib.import_module("imagenet")


def rates(plan, steps_per_epoch=100):
    """The learning rate at every step of the plan."""
    found = []
    for phase in plan.phases:
        if isinstance(phase, Train):
            steps = phase.length.steps(steps_per_epoch)
            found.append([phase.lr(step, steps) for step in range(steps)])
    return found


def test_the_paper_presets_are_the_papers_settings(script):
    """Liu et al., 2021, appendix C; the refinement's rates are those of the authors' code."""
    (dst,) = rates(script.make_plan(dataclasses.replace(script.PAPER, method="dst")))
    assert len(dst) == 200 * 100
    np.testing.assert_allclose(dst[:500], 0.1 * np.arange(1, 501) / 500)  # five epochs up
    for begin, end, rate in ((5, 60, 0.1), (60, 120, 0.01), (120, 180, 0.001), (180, 200, 0.0001)):
        np.testing.assert_allclose(dst[begin * 100 : end * 100], rate)
    plan = script.make_plan(dataclasses.replace(script.PAPER, method="edst", members=4))
    explore, *refine = rates(plan)
    assert plan.members == len(refine) == 4
    np.testing.assert_allclose(explore, [min(1, (i + 1) / 500) * 0.1 for i in range(3000)])
    for each in refine:
        np.testing.assert_allclose(each, [0.01] * 3000 + [0.001] * 3000 + [0.0001] * 1000)
    assert plan.steps(100) == 310 * 100
    train = [phase for phase in plan.phases if isinstance(phase, Train)]
    assert {
        (p.evolve.update_every, p.evolve.drop_fraction, p.evolve.decay) for p in train if p.evolve
    } == {(4000, 0.5, "cosine")}
    assert (plan.batch_size, plan.start.sparsity, plan.start.distribution) == (64, 0.8, "erk")
    assert {(p.optimizer.momentum, p.optimizer.weight_decay) for p in train} == {(0.9, 1e-4)}
    assert script.make_task(script.PAPER, 1000).loss.label_smoothing == 0.1
    assert jt.plan.Plan.from_json(plan.to_json()) == plan


def test_costs_are_those_of_the_papers_table_3(script):
    # ERK at .8 leaves ResNet-50 .4138 of its forward FLOPs (the paper rounds to .42): x 310/150, x 2 x 200/150 epochs.
    # RigL's dense gradients once in 4000 steps are 1e-4 of it.
    data, wanted = script.blank(script.PAPER), {("edst", 4): 0.855, ("dst", 2): 1.103}
    task = script.make_task(script.PAPER, 1000)
    for (method, members), ratio in wanted.items():
        plan = script.make_plan(dataclasses.replace(script.PAPER, method=method, members=members))
        assert jt.cost(plan, task, data).training == pytest.approx(ratio, abs=2e-3)


def test_networks_of_several_predictions_cost_what_they_compute(script, capsys):
    """Havasi et al., 2021, as Liu et al. quote them in table 3: M = 2 of TreeNet and MIMO, 4 of BatchEnsemble; the reasons why it
    is another count stand beside it."""
    # MIMO's four repetitions of a wider stem and classifier; no block of ResNet-50 gives TreeNet's 1.33.
    data = script.blank(script.PAPER)
    for method, heads, ratio, told in (
        ("treenet", 2, 1.305, "1.33x in 1.5 training runs, here in 1: no block"),
        ("batch_ensemble", 4, 4.00, "1.10x in 4 training runs, here in 1: the paper supposes"),
        ("mimo", 2, 4.12, "1.00x in 1 training run, here in 1: the paper leaves out"),
    ):
        config = dataclasses.replace(script.PAPER, method=method)
        plan, task = script.make_plan(config), script.make_task(config, 1000)
        assert (plan.name, task.heads, plan.epochs()) == (method, heads, 150)
        assert jt.cost(plan, task, data).training == pytest.approx(ratio, abs=6e-3)
        script.show_paper(config, plan, task)
        assert told in " ".join(capsys.readouterr().out.split())
    assert "input_repetition=0.6" in task.name


def test_fast_weights_learn_half_as_fast(script):
    config = dataclasses.replace(script.PAPER, method="batch_ensemble")
    _, fast = config.update_rule().overrides
    assert (fast.pattern, fast.lr, fast.weight_decay) == ("fast_", 0.5, 0.0)


def test_weight_decay_spares_batch_norm_and_nothing_else(script):
    task = script.make_task(script.PAPER, 1000)
    params, state = jax.eval_shape(task.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    spared = {path for path in masks.leaf_paths(params) if re.search(script.NO_DECAY, path)}
    # Every layer that keeps running averages is a batch-norm: its scale and bias, and nothing else, are spared.
    layers = {
        path.removeprefix("batch_stats/").rsplit("/", 1)[0] for path in masks.leaf_paths(state)
    }
    assert len(layers) == 53  # as many as ResNet-50 has convolutions
    assert spared == {f"{layer}/{leaf}" for layer in layers for leaf in ("scale", "bias")}
    (override,) = script.PAPER.update_rule().overrides
    assert (override.pattern, override.weight_decay) == (script.NO_DECAY, 0.0)


def guarded(script, config):
    with script.running.one_line_errors():
        script.run(config)


def quick(script, out, **changes: Any):
    tiny = {
        "width": 2,
        "size": 16,
        "members": 2,
        "epochs": 1,
        "warmup": 0,
        "method": "dst",
        "batch_size": 128,
        "update_every": 2,
    }
    return dataclasses.replace(script.DEMO, out=out, **(tiny | changes))


def test_the_demo_draws_trains_and_evaluates(script, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["experiments/imagenet.py", "--imagenet-a", "/somewhere", "--out", "x"]
    )
    monkeypatch.delenv("JAXTICKETS_DATA", raising=False)
    config = quick(script, tmp_path)
    guarded(script, config)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["command"] == "python experiments/imagenet.py --imagenet-a DIR"
    assert (
        results["dataset"].items() > {"name": "synthetic shapes", "train": 640, "test": 200}.items()
    )
    assert re.fullmatch("[0-9a-f]{16}", results["dataset"]["test_fingerprint"])
    assert (results["examples"], results["subset"]["examples"]) == (200, 100)
    assert len(results["members"]) == len(results["subset"]["members"]) == 2
    assert results["subset"]["ensemble"].keys() == {
        "accuracy",
        "nll",
        "ece",
        "adaptive_ece",
        "brier",
    }
    said = capsys.readouterr()
    assert "synthetic" in said.out
    # The same command again loads the run, draws nothing and trains nothing.
    before = {
        path: path.stat().st_mtime_ns
        for path in tmp_path.rglob("*.*")
        if path.suffix in (".JPEG", ".safetensors")
    }
    guarded(script, config)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert json.loads((tmp_path / "results.json").read_text())["ensemble"] == results["ensemble"]
    assert "steps" not in capsys.readouterr().err
    with pytest.raises(SystemExit):
        guarded(script, dataclasses.replace(config, label_smoothing=0.0))
    assert re.search("RunError.*label_smoothing", capsys.readouterr().err)


def test_a_run_is_evaluated_on_streams(script, tmp_path, monkeypatch, capsys):
    """Corrupted pictures and a set of two of the four classes, as ImageNet-C and -A are, from MIMO's two heads."""
    monkeypatch.delenv("JAXTICKETS_DATA", raising=False)
    config = quick(script, tmp_path / "run", method="mimo", repetition=1)
    guarded(script, config)
    pictures = tmp_path / "run-pictures"
    for severity in ("1", "2"):
        (pictures / "ImageNet-C" / "fog").mkdir(parents=True, exist_ok=True)
        (pictures / "ImageNet-C" / "fog" / severity).symlink_to(pictures / "val")
    evaluate = importlib.import_module("evaluate")

    def evaluated(**flags: Any):
        settings = {"dataset": "folders", "data_dir": pictures, "figures": False}
        sources = (tmp_path / "run",)
        return evaluate.evaluate(
            evaluate.Config(sources=sources, out=tmp_path / "out", **settings | flags)
        )

    how = {"corruptions": ("fog",), "severities": (1, 2), "shifted": (pictures / "subset",)}
    found = evaluated(suite="corrupted,shifted,diversity", **how)
    (row,) = found["rows"]
    assert found["test"]["name"] == "synthetic shapes"
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert row["evaluation"]["ensemble"]["accuracy"] == results["ensemble"]["accuracy"]
    parts = row["evaluation"]["parts"]
    subset = parts["shifted"]["subset"]
    assert (subset["examples"], subset["classes"]) == (100, 2)
    assert subset["ensemble"] == results["subset"]["ensemble"]
    sets = parts["corrupted"]["sets"]  # the pictures of the test set, cut otherwise
    assert [(one["corruption"], one["severity"]) for one in sets] == [("fog", 1), ("fog", 2)]
    assert parts["corrupted"]["generated"] is False
    table = (tmp_path / "out" / "table.md").read_text()
    assert "subset accuracy % ↑" in table
    assert "subset of 100 examples and 2 classes" in table
    for flags, says in (
        ({"suite": "ood"}, "--suite ood: of images in memory"),
        ({"suite": "shifted"}, "--shifted names the folders"),
        ({"suite": "corrupted", "corrupted": "generated"}, "ImageNet-C is published"),
        ({"examples": 5}, "class by class"),
        ({"dataset": None}, "of synthetic shapes; this script evaluates on .*imagenet"),
    ):
        with pytest.raises(jt.errors.ReportError, match=says):
            evaluated(**flags)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"preset": "paper"}, ["DataNotFoundError", "DIR/train/n01440764", "--data-dir DIR"]),
        (
            {"data_dir": Path("/nonexistent")},
            ["DataNotFoundError", "/nonexistent (no such folder)"],
        ),
        ({"warmup": 3}, ["PlanError", "--warmup", "1 epochs", "3"]),
        ({"lr": -1.0}, ["PlanError", "learning rate", "-1"]),
        ({"depth": 19}, ["PlanError", "depth", "19"]),
        ({"sparsity": 1.0}, ["PlanError", "sparsity", "[0, 1)"]),
        ({"imagenet_a": Path("/nonexistent")}, ["DataNotFoundError", "/nonexistent"]),
        ({"workers": -2}, ["DataError", "workers", "-2"]),
    ],
)
def test_what_cannot_be_is_one_line(script, tmp_path, changes, words, capsys, monkeypatch):
    monkeypatch.delenv("JAXTICKETS_DATA", raising=False)
    with pytest.raises(SystemExit) as caught:
        guarded(script, quick(script, tmp_path, **changes))
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    for word in words:
        assert word in said


def test_help_names_every_flag_with_its_meaning(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["imagenet.py", "--preset", "paper", "--help"])
    with pytest.raises(SystemExit):
        script.running.parse({"demo": script.DEMO, "paper": script.PAPER}, script.__doc__)
    text = capsys.readouterr().out
    for field in dataclasses.fields(script.Config):
        assert f"--{field.name.replace('_', '-')}" in text
    assert "4000" in text  # the paper's Delta T is the default now
    assert "[docstring]" not in text
