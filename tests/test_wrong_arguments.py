"""Wrong arguments of functions outside of plans: one message each, exact, before anything runs."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtickets as jt
from jaxtickets import evaluation
from jaxtickets.data import CropFlip
from jaxtickets.dataset import Dataset
from jaxtickets.errors import DataError, EvaluationError, ExportError, MaskError, PlanError

SPEC = jax.ShapeDtypeStruct((4,), jnp.float32)
PARAMS = {"b": jnp.zeros(3), "w1": jnp.zeros((4, 3)), "w2": jnp.zeros((3, 2))}
KEY = jax.random.key(0)
NAN = float("nan")


def mlp(params, state, x, train, key):
    return jnp.tanh(x @ params["w1"] + params["b"]) @ params["w2"], state


TASK = jt.Task(
    lambda key, x: ({"w": jnp.eye(2)}, {}),
    lambda params, state, x, train, key: (x @ params["w"], state),
    lambda outputs, y: jnp.zeros(len(y)),
    jax.nn.log_softmax,
    num_classes=2,
)
TICKET = jt.Ticket({"w": np.eye(2, dtype=np.float32)}, {"w": np.ones((), bool)}, {}, {})
TICKETS = jt.TicketEnsemble(TASK, (TICKET,), jax.ShapeDtypeStruct((2,), jnp.float32))
UNITS = jt.units.find_units(mlp, PARAMS, {}, SPEC)
X, Y = np.array([[0.5, 0.25]], np.float32), np.array([0])
P = np.full((1, 8, 2), [0.3, 0.7])

FUNCTIONS = {
    "find_units": (
        jt.units.find_units,
        {"apply": mlp, "params": PARAMS, "model_state": {}, "x_spec": SPEC},
        MaskError,
    ),
    "random_units": (
        jt.units.random_units,
        {"key": KEY, "units": UNITS, "sparsity": 0.3},
        MaskError,
    ),
    "fgsm": (evaluation.fgsm, {"tickets": TICKETS, "test": (X, Y)}, EvaluationError),
    "pgd": (evaluation.pgd, {"tickets": TICKETS, "test": (X, Y), "steps": 1}, EvaluationError),
    "paired_bootstrap": (
        evaluation.paired_bootstrap,
        {"first": P, "second": P, "y": np.ones(8, int), "seed": 0, "resamples": 9},
        EvaluationError,
    ),
    "CropFlip": (CropFlip, {}, DataError),
    "Dataset": (Dataset, {"x": X, "y": Y, "num_classes": 2}, DataError),
    "Task": (
        lambda **changes: dataclasses.replace(TASK, **changes),
        {},
        MaskError,
    ),
}
RULES = (
    "rules are pairs (pattern, True, False or a function of the leaf), such as [('kernel', True),"
    " ('.*', False)]"
)
KEYS = "key is a random key, such as jax.random.key(0); got {}."
CLASSES = "arrays: num_classes is an integer, at least 1, or None for a regression; got {}."
SHARE = "step: got {}, wanted a share of the pixels' range, in (0, 1], such as 8 / 255."
# A function, its argument, a wrong value, the message.
TABLE = [
    ("find_units", "apply", None, "apply is a function, as Task.apply; got None."),
    (
        "find_units",
        "x_spec",
        (4, 3),
        "x_spec is of jax.ShapeDtypeStruct((4,), jnp.float32), without the batch axis; got (4, 3).",
    ),
    (
        "find_units",
        "keep_dense",
        "w1",
        "keep_dense is a tuple of path patterns, such as ('Dense_0',); got 'w1'.",
    ),
    ("find_units", "rules", "w1", f"{RULES}; got 'w1'."),
    ("random_units", "key", 0, KEYS.format(0)),
    ("random_units", "units", [3], "units are what find_units returns; got [3]."),
    (
        "random_units",
        "sparsity",
        1.0,
        "sparsity is the share of zeros, in [0, 1); got 1.0. A sparsity of 0.8 keeps a fifth of the"
        " weights.",
    ),
    (
        "random_units",
        "sparsity",
        90,
        "sparsity is the share of zeros, in [0, 1); got 90. Is 0.9 meant? It keeps 0.1 of the"
        " weights.",
    ),
    ("random_units", "scope", "all", "scope is one of layerwise, global; got 'all'."),
    (
        "random_units",
        "key",
        jax.random.split(KEY, 2),
        "key is one random key; got [2] of them. Members take one each: map over keys by jax.vmap.",
    ),
    *(
        (name, "batch_size", value, f"batch_size: got {value!r}, wanted an integer of 1 or more.")
        for name in ("fgsm", "pgd")
        for value in (0, 1.5, "x", True, None)
    ),
    *(("fgsm", "step", value, SHARE.format(repr(value))) for value in (0, 2.0, NAN, "x", True)),
    *(
        (
            "fgsm",
            "on",
            value,
            f"on: got {value!r}, wanted a member's number, 0 to 0, or None for the ensemble.",
        )
        for value in (1, -1, True, "x", 0.0)
    ),
    ("pgd", "key", 3, KEYS.format(3)),
    ("pgd", "steps", 1.5, "steps: got 1.5, wanted an integer of 1 or more."),
    ("pgd", "radius", "x", SHARE.replace("step", "radius").format("'x'")),
    *(
        ("paired_bootstrap", "seed", v, f"seed: got {v!r}, wanted an integer of 0 or more.")
        for v in (None, -1, 1.5, "x", True)
    ),
    *(
        (
            "paired_bootstrap",
            "level",
            v,
            f"level: got {v!r}, wanted a share in (0, 1), such as 0.95.",
        )
        for v in (0, 1, 95, NAN, "x", None, True)
    ),
    *(
        (
            "paired_bootstrap",
            "resamples",
            v,
            f"resamples: got {v!r}, wanted an integer of 1 or more, at most 2,147,483,647.",
        )
        for v in (0, 1.5, "x", True, 10**12)
    ),
    *(
        (
            "CropFlip",
            "pad",
            v,
            f"CropFlip: pad is a number of pixels, an integer >= 0 and below 16,384; got {v!r}",
        )
        for v in (-1, 1.5, "x", True, 10**6)
    ),
    *(
        ("CropFlip", "flip", v, f"CropFlip: flip is True or False; got {v!r}")
        for v in (1, "no", None)
    ),
    *(("Dataset", "num_classes", v, CLASSES.format(repr(v))) for v in (-3, 0, 2.5, "x", True)),
    *(("Dataset", "name", v, f"Dataset: name is a text; got {v!r}.") for v in (3, None, "")),
    ("Task", "prunable", "kernel", f"{RULES}; got 'kernel'."),
    ("Task", "prunable", [("kernel",)], f"{RULES}; got ('kernel',) among them."),
    (
        "Task",
        "prunable",
        [("(", True)],
        "the rule's pattern '(' is no regular expression: missing ), unterminated subpattern at"
        " position 0. It is searched in paths like 'a/kernel'.",
    ),
]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_right_arguments_are_taken(name):
    function, right, _ = FUNCTIONS[name]
    function(**right)


@pytest.mark.parametrize(("name", "argument", "value", "message"), TABLE)
def test_a_wrong_argument_is_refused_in_these_words(name, argument, value, message):
    function, right, error = FUNCTIONS[name]
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        function(**{**right, argument: value})


def test_a_plan_and_a_task_in_each_others_place_are_told():
    plan = jt.dense(1, 1, batch_size=1)
    for call in (lambda: jt.fit(TASK, plan, (X, Y), key=0), lambda: jt.cost(TASK, plan, (X, Y))):
        with pytest.raises(
            PlanError, match=r"plan is a Plan, such as jt.dst\(...\) makes; got Task"
        ):
            call()


def test_a_pair_of_data_sets_is_told():
    data = Dataset(X, Y, 2)
    with pytest.raises(DataError, match=r"got a pair of data sets. Take one of them: train, test"):
        jt.fit(jt.dense(1, 1, batch_size=1), TASK, (data, data), key=0)


def test_an_export_to_an_unknown_kind_of_file_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"path ends in .jax \(StableHLO\) or .onnx"):
        TICKETS.export(tmp_path / "ensemble.pt", (X, Y))
    assert not list(tmp_path.iterdir())
