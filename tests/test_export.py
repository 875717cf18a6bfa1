"""Exported ensembles: every network in every format predicts what `predict_proba` does, and says what it takes."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.extend.core import Primitive
from jax.interpreters import mlir
from others import others

import jaxtickets as jt
from jaxtickets.dataset import Dataset
from jaxtickets.models import (
    DenseNet,
    LeNet,
    ResNet,
    TextClassifier,
    TransformerConfig,
    WideResNet,
)
from jaxtickets.tickets import Ticket, TicketEnsemble, file_layout, onnx_file, program_file
from jaxtickets.tickets.exporting import Exporting

ROOT = Path(__file__).resolve().parent.parent
TEXTS = {
    "vocabulary": 50,
    "layers": 2,
    "width": 16,
    "heads": 2,
    "intermediate": 32,
    "positions": 16,
}
NETWORKS = {
    "lenet": lambda: LeNet("S", num_classes=3),
    "wide resnet": lambda: WideResNet(10, 1, num_classes=3),
    "resnet": lambda: ResNet(18, num_classes=3, width=8, stem="imagenet"),
    "densenet": lambda: DenseNet((1, 1, 1, 1), growth=4, num_classes=3),
    "bert": lambda: TextClassifier(TransformerConfig("bert", **TEXTS), 3),
    "roberta": lambda: TextClassifier(TransformerConfig("roberta", **TEXTS), 3),
}
RNG = np.random.default_rng(0)
PIXELS = Dataset(
    RNG.integers(0, 256, (7, 16, 16, 3), dtype=np.uint8),
    np.zeros(7, np.int32),
    3,
    "pixels",
    prepare=jt.data.Standardise((0.5, 0.4, 0.3), (0.2, 0.2, 0.3)),
    class_names=("ant", "bee", "cat"),
)
SEEN = np.arange(8)[None] < np.array([8, 3, 1, 5, 8, 2, 7])[:, None]
TOKENS = Dataset(
    {
        "input_ids": np.where(SEEN, RNG.integers(2, 50, (7, 8)), 0).astype(np.uint16),
        "attention_mask": SEEN.astype(np.int8),
    },
    np.zeros(7, np.int32),
    3,
    "tokens",
)


def ensemble(task, data, members=2, smaller=False):
    """Tickets of fresh weights, a half of them pruned, whose statistics are not those of the beginning.

    `smaller`: half of the units are pruned and cut out, others of each member.
    """
    x = jax.tree.map(lambda a: jnp.asarray(a[:2]), data.prepare(data.x))
    spec = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)
    tickets = []
    for i in range(members):
        params, state = jax.device_get(task.init(jax.random.key(i), x))
        draw = np.random.default_rng(i)
        if smaller:
            units = jt.units.find_units(task.apply, params, state, spec, task.prunable)
            keep = jt.units.random_units(jax.random.key(i), units, 0.5)
            mask = jax.device_get(jt.units.unit_mask(units, keep))
        else:
            mask = jax.tree.map(
                lambda p, d=draw: d.random(p.shape) < 0.5 if p.ndim > 1 else np.ones((), bool),
                params,
            )
        params = jax.device_get(jt.masks.apply(mask, params))
        state = jax.tree.map(lambda s, d=draw: s + d.random(s.shape).astype(s.dtype), state)
        tickets.append(Ticket(params, mask, state, {}))
    whole = TicketEnsemble(task, tuple(tickets), spec)
    return jt.shrink(whole) if smaller else whole


def of(name, members=2, smaller=False):
    data = TOKENS if "bert" in name else PIXELS
    return ensemble(jt.classification(NETWORKS[name]()), data, members, smaller), data


class Small(nn.Module):
    """Enough of a network where it does not matter which."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(self.num_classes)(nn.relu(nn.Dense(5)(x)))


ROWS = Dataset(RNG.normal(size=(9, 4)).astype(np.float32), np.zeros(9, np.int32), 3, "rows")
SMALL = ensemble(jt.classification(Small()), ROWS)


def onnx_session(file):
    runtime = others("onnxruntime")
    return runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


def needs_onnx():
    """The extra is there. jax2onnx is not imported here: that would change JAX."""
    for module in ("onnx", "onnxruntime"):
        others(module)
    if importlib.util.find_spec("jax2onnx") is None:
        assert os.environ.get("JAXTICKETS_TESTS") != "all"
        pytest.skip("jax2onnx is not installed: pip install 'jaxtickets[tests]'")


# The function


@pytest.mark.parametrize("name", ["lenet", "roberta"])
def test_the_function_of_raw_inputs_is_predict_proba(name):
    tickets, data = of(name)
    each = np.exp(tickets.member_log_proba(data))
    predict, every = tickets.function(data), tickets.function(data, members=True)
    found = jax.jit(lambda x: (predict(x), every(x), predict.apply(predict.weights, x)))(data.x)
    # Probabilities by the same operations, compiled together: a few units in the last place.
    for got, wanted in zip(found, (each.mean(0), each, each.mean(0)), strict=True):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert not np.allclose(each[0], each[1], atol=1e-3)  # members differ


def test_the_function_is_derived_by_weights_and_by_pixels():
    predict = SMALL.function()

    def loss(weights, x):
        return -jnp.mean(jnp.log(predict.apply(weights, x)[:, 0]))

    by_weights, by_x = jax.grad(loss, (0, 1))(predict.weights, jnp.asarray(ROWS.x))
    # by hand, of the last layer's bias (Dense_0, as Flax counts): the mean of the members' softmax, of which each is a half
    each = np.exp(SMALL.member_log_proba(ROWS))
    p = each.mean(0)[:, 0]
    for member, one in enumerate(each):
        wanted = -(one[:, :1] * (np.eye(3)[0] - one) / 2 / p[:, None]).mean(0)
        np.testing.assert_allclose(
            by_weights[member][0]["Dense_0"]["bias"], wanted, rtol=1e-4, atol=1e-6
        )
    assert float(jnp.abs(by_x).max()) > 0
    np.testing.assert_allclose(
        jax.vmap(predict)(jnp.asarray(ROWS.x)[:, None])[:, 0], predict(ROWS.x), atol=1e-6
    )


def test_a_regression_is_the_mean_of_its_members_and_heads():
    def init(key, x):
        return {"w": jax.random.normal(key, (2, x.shape[-1]))}, {}

    def apply(params, state, x, train, key):
        return params["w"] @ x.T, state

    task = jt.Task(init, apply, lambda out, y: out[0], lambda out: out, heads=2)
    tickets = ensemble(task, dataclasses.replace(ROWS, num_classes=None))
    wanted = np.stack([(t.params["w"] @ ROWS.x.T) for t in tickets]).reshape(4, -1)
    np.testing.assert_allclose(tickets.function(members=True)(ROWS.x), wanted, atol=1e-5)
    np.testing.assert_allclose(tickets.function()(ROWS.x), wanted.mean(0), atol=1e-5)


def test_a_function_says_what_it_takes():
    tickets, data = of("lenet")
    with pytest.raises(jt.DataError, match=r"uint8\[16, 16, 3\].*trained on float32\[16, 16, 3\]"):
        tickets.function()(data.x)
    with pytest.raises(jt.DataError, match=r"\[8, 16, 3\] per example"):
        jax.jit(tickets.function(data))(data.x[:, :8])
    with pytest.raises(jt.ExportError, match=r"data is the Dataset"):
        tickets.function(data.x)
    with pytest.raises(jt.ExportError, match=r"members is True or False; got 1"):
        tickets.function(data, members=1)


# Every network in every format


@pytest.mark.parametrize("name", NETWORKS)
def test_stablehlo_of_every_smaller_network_is_predict_proba(name, tmp_path):
    tickets, data = of(name, smaller=True)
    file = tmp_path / "exported.jax"
    about = tickets.export(file, data)
    check = about["check"]
    print(f"{name} | stablehlo | {check['largest_difference']:.1e} | {file.stat().st_size:,} bytes")
    assert check["largest_difference"] < 1e-6
    exported = jt.load_exported(file)
    assert exported.about == {k: v for k, v in about.items() if k != "sha256"}
    assert exported.about["platforms"] == ["cpu", "cuda", "tpu"]
    wanted = tickets.predict_proba(data)
    for rows in (slice(None), slice(1)):  # two batches, neither of them the one that was checked
        x = jax.tree.map(lambda a, r=rows: a[r], data.x)
        np.testing.assert_allclose(exported(x), wanted[rows], atol=1e-6)
    exported(data.x)
    assert exported._run._cache_size() == 2  # nothing is compiled twice


@pytest.mark.parametrize(
    ("name", "smaller"),
    [*((name, True) for name in NETWORKS), ("wide resnet", False), ("roberta", False)],
)
def test_onnx_of_every_network_is_predict_proba(name, smaller, tmp_path):
    needs_onnx()
    tickets, data = of(name, smaller=smaller)
    file = tmp_path / "exported.onnx"
    about = tickets.export(file, data)
    check = about["check"]
    print(f"{name} | onnx | {check['largest_difference']:.1e} | {file.stat().st_size:,} bytes")
    assert check["largest_difference"] < 1e-6
    assert "ONNX Runtime" in check["in"]
    session = onnx_session(file)
    assert [out.name for out in session.get_outputs()] == ["probabilities"]
    assert json.loads(session.get_modelmeta().custom_metadata_map["jaxtickets"]) == about
    wanted = tickets.predict_proba(data)
    for rows in (slice(None), slice(1)):
        x = data.x if isinstance(data.x, dict) else {"x": data.x}
        (got,) = session.run(None, {name: array[rows] for name, array in x.items()})
        np.testing.assert_allclose(got, wanted[rows], atol=1e-6)


def test_a_smaller_network_is_a_smaller_file_and_a_masked_one_is_not(tmp_path):
    sizes = {}
    for kind, smaller in (("masked", False), ("smaller", True)):
        tickets, data = of("lenet", 1, smaller)
        weights = tickets.export(tmp_path / kind, data, platforms=("cpu",))["weights"]
        sizes[kind] = (tmp_path / kind).stat().st_size, weights
    (masked, of_masked), (small, of_small) = sizes["masked"], sizes["smaller"]
    assert of_masked["zeros"] > 0.4 * of_masked["numbers"]
    assert masked > 4 * of_masked["numbers"]  # zeros and all, four bytes each
    assert small < 0.5 * masked
    assert of_small["numbers"] < 0.5 * of_masked["numbers"]


def test_members_and_a_fixed_batch(tmp_path):
    about = SMALL.export(tmp_path / "x.jax", ROWS, members=True, batch=4, platforms="cpu")
    assert about["output"]["axes"] == ["members", "batch", "classes"]
    exported = jt.load_exported(tmp_path / "x.jax")
    each = np.exp(SMALL.member_log_proba(ROWS))
    np.testing.assert_allclose(exported(ROWS.x[:4]), each[:, :4], atol=1e-6)
    with pytest.raises(jt.DataError, match=r"x holds 3 examples; .* 4 examples at a time"):
        exported(ROWS.x[:3])


def test_what_the_file_says_of_itself(tmp_path):
    tickets, data = of("lenet")
    tickets.export(tmp_path / "x.jax", data, platforms=["tpu", "cpu"])
    about = jt.load_exported(tmp_path / "x.jax").about
    assert about["input"] == {"shape": [16, 16, 3], "dtype": "uint8"}
    assert about["output"] == {
        "name": "probabilities",
        "axes": ["batch", "classes"],
        "dtype": "float32",
    }
    assert about["normalisation"] == repr(PIXELS.prepare)
    assert about["classes"] == 3
    assert about["class_names"] == ["ant", "bee", "cat"]
    assert about["tickets"] == about["members"] == 2
    assert about["batch"] == "any"
    assert about["versions"]["jax"] == jax.__version__
    leaves = [leaf for t in tickets for leaf in jax.tree.leaves((t.params, t.model_state))]
    assert about["weights"]["numbers"] == sum(leaf.size for leaf in leaves)
    assert about["weights"]["zeros"] == sum(int((leaf == 0).sum()) for leaf in leaves)
    # zeros are stored
    assert (tmp_path / "x.jax").stat().st_size > about["weights"]["bytes"]


def test_without_data_it_takes_what_the_network_takes(tmp_path):
    tickets, data = of("bert")
    about = tickets.export(tmp_path / "x.jax", platforms=("cpu",))
    assert about["normalisation"].startswith("none")
    assert about["check"]["examples"] == 3
    x = jax.tree.map(lambda a: a, data.x)
    np.testing.assert_allclose(
        jt.load_exported(tmp_path / "x.jax")(x), tickets.predict_proba(data), atol=1e-6
    )


def test_an_exported_function_runs_without_our_models(tmp_path):
    tickets, data = of("lenet")
    tickets.export(tmp_path / "x.jax", data, platforms=("cpu",))
    np.save(tmp_path / "x.npy", data.x)
    code = (
        "import sys, numpy as np, jaxtickets as jt;"
        f"p = jt.load_exported({str(tmp_path / 'x.jax')!r});"
        f"np.save({str(tmp_path / 'p.npy')!r}, p(np.load({str(tmp_path / 'x.npy')!r})));"
        "print('flax' in sys.modules, 'jaxtickets.models' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["False", "False"], done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), tickets.predict_proba(data), atol=1e-6)


def test_equal_ensembles_give_equal_files(tmp_path):
    for name in "ab":
        SMALL.export(tmp_path / name, ROWS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_it_is_compiled_into_other_programs(tmp_path):
    SMALL.export(tmp_path / "x.jax", ROWS)
    exported = jt.load_exported(tmp_path / "x.jax")
    got = jax.jit(lambda x: exported(x * 2).argmax(-1))(jnp.asarray(ROWS.x))
    np.testing.assert_array_equal(got, SMALL.predict(ROWS.x * 2))


# What cannot be


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"platforms": ("cpu", "gpu")},
            r"cpu, cuda, rocm, tpu; got 'gpu'. A GPU of NVIDIA is cuda",
        ),
        ({"platforms": ()}, r"platforms are different ones of .*got \(\)"),
        ({"platforms": ("cpu", "cpu")}, r"platforms are different ones"),
        ({"platforms": 3}, r"platforms are different ones .* got 3"),
        ({"batch": 0}, r'at least 1, or "any"; got 0'),
        ({"batch": "all"}, r'or "any"; got \'all\''),
        ({"batch": np.array([1, 2])}, r'or "any"; got int64\[2\]'),
        ({"members": None}, r"members is True or False; got None"),
        ({"format": "torch"}, r'"stablehlo", "onnx" or None; got \'torch\''),
        ({"tolerance": 0}, r"tolerance is a number above 0; got 0"),
        ({"tolerance": "1e-3"}, r"tolerance is a number above 0"),
    ],
)
def test_an_argument_that_cannot_be_is_refused(settings, says, tmp_path):
    with pytest.raises(jt.ExportError, match=says):
        SMALL.export(tmp_path / "x", ROWS, **settings)
    assert not list(tmp_path.iterdir())


def test_data_of_another_shape_are_refused(tmp_path):
    with pytest.raises(jt.DataError, match=r"data is float32\[3\] per example.*float32\[4\]"):
        SMALL.export(tmp_path / "x", ROWS.x[:, :3])


def test_only_an_earlier_export_is_replaced(tmp_path):
    file = tmp_path / "tickets.safetensors"
    SMALL.save(file)
    before = file.read_bytes()
    with pytest.raises(jt.ExportError, match="is nothing that an export of this format wrote"):
        SMALL.export(file, ROWS, format="stablehlo")
    assert file.read_bytes() == before
    other = tmp_path / "mine.jax"
    SMALL.export(other, ROWS)
    SMALL[:1].export(other, ROWS)
    assert jt.load_exported(other).about["tickets"] == 1
    with pytest.raises(jt.ExportError, match="is a folder"):
        SMALL.export(tmp_path, ROWS)


def test_what_is_off_is_not_written_and_says_how_far(tmp_path, monkeypatch):
    file = tmp_path / "x.jax"
    SMALL.export(file, ROWS)
    before = file.read_bytes()
    right = Exporting.of_leaves
    monkeypatch.setattr(
        Exporting, "of_leaves", lambda self, w, x: right(self, w, x) + jnp.float32(0.01)
    )
    with pytest.raises(
        jt.ExportError, match=r"off by 0\.01 in JAX on cpu, on 3 examples; at most 0"
    ):
        SMALL.export(file, ROWS)
    assert file.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["x.jax"]
    assert SMALL.export(file, ROWS, tolerance=0.1)["check"]["largest_difference"] > 0.009


def test_an_exported_function_says_what_it_takes(tmp_path):
    tickets, data = of("bert")
    tickets.export(tmp_path / "x.jax", data, platforms=("cpu",))
    exported = jt.load_exported(tmp_path / "x.jax")
    allowed = (
        r"\['attention_mask'\]: int8\[8\], \['input_ids'\]: uint16\[8\] per example, any number"
    )
    ids = data.x["input_ids"]
    for x in (
        ids,
        {"input_ids": ids},
        data.x | {"input_ids": ids.astype(np.float32)},
        data.x | {"input_ids": ids[:, :4]},
        data.x | {"input_ids": ids[:3]},
        {name: array[0] for name, array in data.x.items()},
        {name: array[:0] for name, array in data.x.items()},
        None,
        [],
    ):
        with pytest.raises(jt.DataError, match=allowed):
            exported(x)


def test_a_platform_that_it_was_not_exported_for_is_told(tmp_path):
    about = SMALL.export(tmp_path / "x.jax", ROWS, platforms=("tpu",))
    assert about["check"] == {"examples": 0, "why": "made on cpu, which is not among its platforms"}
    with pytest.raises(jt.ExportError, match=r"exported for tpu, and this is cpu"):
        jt.load_exported(tmp_path / "x.jax")(ROWS.x)


# Files from anywhere


@pytest.fixture(scope="module")
def exported_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("exported") / "x.jax"
    SMALL.export(file, ROWS)
    return file


def test_a_file_that_ends_early_is_damaged(exported_file, tmp_path):
    whole, cut = exported_file.read_bytes(), tmp_path / "cut"
    for size in (0, 1, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        cut.write_bytes(whole[:size])
        with pytest.raises(jt.ExportError, match="no exported ensemble, or is damaged"):
            jt.load_exported(cut)


def test_a_changed_byte_anywhere_is_found(exported_file, tmp_path):
    whole = exported_file.read_bytes()
    for at in RNG.integers(8, len(whole), 60).tolist():
        changed = bytearray(whole)
        changed[at] ^= 0x55
        (tmp_path / "changed").write_bytes(changed)
        with pytest.raises(jt.ExportError):
            jt.load_exported(tmp_path / "changed")


def rewritten(file, target, change):
    """The file with other metadata and tensors, and a digest that fits them."""
    about, tensors = program_file._read(file)
    del about["sha256"]
    change(about, tensors)
    sizes = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    about["sha256"] = file_layout.digest(sizes, tensors.__getitem__, about)
    parts = [
        np.ascontiguousarray(one).reshape(-1).view(np.uint8).tobytes() for one in tensors.values()
    ]
    target.write_bytes(file_layout.header(sizes, program_file.METADATA, about) + b"".join(parts))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a, t: a.update(format=2), "of format 2; this version reads format 1"),
        (lambda a, t: a.pop("arguments"), "metadata is not an exported"),
        (lambda a, t: a.update(arguments=3), "metadata is not an exported"),
        (lambda a, t: a.update(batch="many"), "metadata is not an exported"),
        (lambda a, t: a.update(input={"shape": [-1], "dtype": "float32"}), "metadata is not"),
        (lambda a, t: a.update(input={"shape": [5], "dtype": "float32"}), "other inputs"),
        (lambda a, t: a["arguments"].pop(), "arguments are not the tensors that it holds"),
        (lambda a, t: t.pop("0/params/Dense_0/kernel"), "arguments are not the tensors"),
        (lambda a, t: a.update(batch=3), "other inputs"),
        (
            lambda a, t: t.update({"0/params/Dense_0/kernel": np.zeros((4, 6), np.float32)}),
            "'0/params/Dense_0/kernel' is not what its program takes",
        ),
        (lambda a, t: t.update(program=np.zeros(50, np.uint8)), "does not read its program"),
        (lambda a, t: t.update(program=t["program"][:-200]), "does not read its program"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(exported_file, change, says, tmp_path):
    rewritten(exported_file, tmp_path / "other", change)
    with pytest.raises(jt.ExportError, match=says):
        jt.load_exported(tmp_path / "other")


CALLBACK = "xla_ffi_python_cpu_callback"


def test_a_program_that_calls_python_is_refused(exported_file, tmp_path):
    def with_callback(about, tensors):
        def run(weights, leaves):
            shape = jax.ShapeDtypeStruct((3, 3), jnp.float32)
            return jax.ffi.ffi_call(CALLBACK, shape)(leaves[0], index=np.uint64(0))

        avals = program_file.jax.export.deserialize(
            bytearray(tensors["program"].tobytes())
        ).in_avals
        weights = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals[:-1]]
        inputs = [jax.ShapeDtypeStruct((3, 4), jnp.float32)]
        off = [jax.export.DisabledSafetyCheck.custom_call(CALLBACK)]
        exported = jax.export.export(jax.jit(run, keep_unused=True), disabled_checks=off)(
            weights, inputs
        )
        tensors["program"] = np.frombuffer(exported.serialize(), np.uint8)

    rewritten(exported_file, tmp_path / "other", with_callback)
    with pytest.raises(jt.ExportError, match="calls out of itself"):
        jt.load_exported(tmp_path / "other")


def test_other_files_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no exported file"):
        jt.load_exported(tmp_path / "nothing")
    SMALL.save(tmp_path / "t.safetensors")
    with pytest.raises(jt.ExportError, match="is a ticket file, which needs its network"):
        jt.load_exported(tmp_path / "t.safetensors")
    SMALL.export(tmp_path / "x.jax", ROWS)
    with pytest.raises(jt.TicketFileError, match="not a ticket file"):
        jt.load(tmp_path / "x.jax", SMALL.task)
    with zipfile.ZipFile(tmp_path / "z.onnx", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(jt.ExportError, match=r"ONNX files are for onnxruntime"):
        jt.load_exported(tmp_path / "z.onnx")


# ONNX


ODD = Primitive("odd")
ODD.def_abstract_eval(lambda x: x)
mlir.register_lowering(ODD, mlir.lower_fun(jnp.negative, multiple_results=False))


class Odd(nn.Module):
    """A layer that ONNX has no operation for."""

    @nn.compact
    def __call__(self, x):
        return ODD.bind(x)


class WithOdd(nn.Module):
    num_classes: int = 3

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(self.num_classes)(Odd(name="oddity")(x))


def test_a_layer_that_onnx_lacks_is_named(tmp_path):
    needs_onnx()
    tickets = ensemble(jt.classification(WithOdd()), ROWS)
    with pytest.raises(jt.ExportError, match=r"WithOdd/oddity uses 'odd'"):
        tickets.export(tmp_path / "x.onnx", ROWS)
    assert not list(tmp_path.iterdir())

    def bare_apply(params, state, x, train, key):
        return ODD.bind(x) @ params["w"], state

    def bare_init(key, x):
        return {"w": jax.random.normal(key, (x.shape[-1], 3))}, {}

    tickets = ensemble(jt.classification((bare_init, bare_apply), num_classes=3), ROWS)
    with pytest.raises(jt.ExportError, match=r"bare_apply \(test_export.py:\d+\) uses"):
        tickets.export(tmp_path / "x.onnx", ROWS)


@pytest.mark.parametrize(
    "config", [((0, 0, 0), (1, 2, 0)), ((0, 0, 0), (-1, 1, 0)), ((2, 0, 0), (2, -2, 0))]
)
def test_padding_by_parts_is_padding(config):
    x, value = jnp.arange(12.0).reshape(3, 4), jnp.float32(-9)
    np.testing.assert_array_equal(
        onnx_file._padded(x, value, padding_config=config), jax.lax.pad(x, value, config)
    )


def test_onnx_of_packed_layers_is_predict_proba(tmp_path):
    """Of Linen's own Dense, whose method jax2onnx replaces on the class."""
    needs_onnx()
    blocks = jt.masks.Blocks(2, 1)
    (first, *_) = SMALL.tickets
    key, rules = jax.random.key(0), [("Dense_1/kernel", True), (".*", False)]
    mask = jt.sparsity.random_mask(key, first.params, 0.5, "uniform", rules, structure=blocks)
    ticket = first._replace(params=jt.masks.apply(mask, first.params), mask=mask)
    packed = jt.pack(jt.TicketEnsemble(SMALL.task, (ticket,), SMALL.x_spec), blocks)
    assert packed.tickets[0].params["Dense_1"]["kernel"].size == 10
    for batch in ("any", 3):
        packed.export(tmp_path / f"{batch}.onnx", ROWS, batch=batch)
    (found,) = onnx_session(tmp_path / "any.onnx").run(None, {"x": ROWS.x})
    np.testing.assert_allclose(found, packed.predict_proba(ROWS), atol=1e-6)


def test_jax_is_left_as_it_was(tmp_path):
    needs_onnx()
    before = {name: getattr(jnp, name) for name in dir(jnp)}
    SMALL.export(tmp_path / "x.onnx", ROWS)
    assert [name for name in before if getattr(jnp, name) is not before[name]] == []
    np.testing.assert_array_equal(jnp.cumsum(jnp.ones((2, 2)), 1), [[1, 2], [1, 2]])


def test_only_an_earlier_onnx_export_is_replaced(tmp_path):
    needs_onnx()
    file = tmp_path / "x.onnx"
    file.write_bytes(b"somebody else's")
    with pytest.raises(jt.ExportError, match="is nothing that an export"):
        SMALL.export(file, ROWS)
    assert file.read_bytes() == b"somebody else's"
    file.unlink()
    SMALL.export(file, ROWS, batch=2, members=True)
    SMALL.export(file, ROWS)
    assert onnx_session(file).get_inputs()[0].shape == ["batch", 4]


def test_without_the_extra_it_is_told_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'pip install "jaxtickets\[export\]"'):
        SMALL.export(tmp_path / "x.onnx", ROWS)
