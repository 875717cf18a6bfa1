"""Wrong arguments of the public functions and classes: each is an error of ours that names the argument, the value and what is allowed."""

import json
import math
import traceback
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtickets as jt
from jaxtickets import plan as p
from jaxtickets import schedules as s

NAN, INF = math.nan, math.inf
COUNT = (None, NAN, INF, -3, 0, True, 1.5, "3", [3], 10**40)
STEPS = COUNT  # a number of steps
LENGTH = (None, NAN, INF, -3, 0, True, "3", [3], 10**40)  # epochs may be fractions
SHARE = (NAN, INF, -0.1, 1.5, True, "0.5", [0.5], None)  # in [0, 1]
BELOW_1 = (*SHARE, 1.0)
INSIDE = (*SHARE, 0.0, 1.0)
RATE = (None, NAN, INF, -0.1, True, "0.1", [0.1], 10**400)
CHOICE = (None, "something", 3, True, ["erk"])
FLAG = (None, 1, 0.0, "yes")
SCHEDULE = (None, 0.1, "cosine", NAN, s.Constant)
OPTIMIZER = (None, "adam", 0.1, p.SGD)
PATTERNS = (None, "classifier", 3, [3], ["["])
VALIDATION = (None, NAN, -3, True, 1.5, "3", [3])
CHILDREN = (None, NAN, -3, 0, True, 1.5, "3", [3])

COMMON = {"batch_size": COUNT, "collect": CHOICE, "validation": VALIDATION}
TRAINED = {"members": COUNT, "epochs": LENGTH, "optimizer": OPTIMIZER, **COMMON}
SPARSE = {
    "sparsity": BELOW_1,
    "distribution": CHOICE,
    "update_every": STEPS,
    "drop_fraction": SHARE,
    "decay": CHOICE,
    "growth": CHOICE,
}
EVOLVE = {
    "update_every": STEPS,
    "drop_fraction": SHARE,
    "decay": CHOICE,
    "growth": CHOICE,
    "regrown": CHOICE,
    "weight_update": FLAG,
}
NETWORK = {"num_classes": COUNT, "dropout": BELOW_1, "dtype": (None, "floaty", 3, jnp.int32)}

NETS = {"net": (None, "LeNet", 3, jt.models.LeNet), "members": (*COUNT, 1)}


def classified(**options):
    return jt.classification(jt.models.LeNet(), **options)


def budget(**options):
    return jt.within_budget(
        classified(), (np.zeros((4, 16, 16, 3), np.float32), np.arange(4)), **options
    )


def from_arrays(**options):
    return jt.data.from_arrays(np.zeros((4, 2), np.float32), np.arange(4), **options)


# What is called, arguments that do, and for each argument values that do not.
TABLE = {
    "dense": (jt.dense, {}, {**TRAINED, "lr": SCHEDULE}),
    "bagged": (jt.bagged, {}, {**TRAINED, "lr": SCHEDULE, "bag": (*SHARE, 0.0)}),
    "static_sparse": (
        jt.static_sparse,
        {},
        {**TRAINED, "lr": SCHEDULE, "sparsity": BELOW_1, "distribution": CHOICE},
    ),
    "dst": (jt.dst, {}, {**TRAINED, **SPARSE, **EVOLVE, "lr": SCHEDULE, "end": SHARE}),
    "edst": (
        jt.edst,
        {},
        {
            "members": COUNT,
            **COMMON,
            **SPARSE,
            **EVOLVE,
            "explore": LENGTH[:4] + LENGTH[5:],  # 0 leaves it out
            "refine": LENGTH,
            "lr": RATE,
            "refine_lr": (None, 0.1, "x", (0.1,), (0.1, NAN), (0.1, "x"), (0.1, -1.0)),
            "escape": SHARE,
        },
    ),
    "imp": (
        jt.imp,
        {},
        {
            **TRAINED,
            "lr": SCHEDULE,
            "sparsity": INSIDE,
            "rounds": COUNT,
            "penalty": (0.1, "l1"),
            "rewind_head": FLAG,
            "scope": CHOICE,
        },
    ),
    "imp's head": (jt.imp, {"rewind_head": False}, {"head": PATTERNS}),
    "multi_ticket": (
        jt.multi_ticket,
        {},
        {
            **TRAINED,
            "scheme": CHOICE,
            "lr": SCHEDULE,
            "sparsity": INSIDE,
            "rounds": COUNT,
            "tau": RATE,
            "decoupled": FLAG,
            "rewind_head": FLAG,
            "scope": CHOICE,
        },
    ),
    "multi_ticket's bags": (jt.multi_ticket, {"scheme": "bagging"}, {"bag": (*SHARE, 0.0)}),
    "ltr": (
        jt.ltr,
        {},
        {
            **TRAINED,
            "lr": SCHEDULE,
            "sparsity": INSIDE,
            "rewind_to": INSIDE,
            "end": SHARE,
            "update_every": STEPS,
            "scope": CHOICE,
        },
    ),
    "prune_finetune": (
        jt.prune_finetune,
        {},
        {
            **TRAINED,
            "lr": SCHEDULE,
            "sparsity": INSIDE,
            "finetune": LENGTH,
            "finetune_lr": SCHEDULE,
            "scope": CHOICE,
        },
    ),
    "prune_and_tune": (
        jt.prune_and_tune,
        {"masks": "random"},
        {
            "members": COUNT,
            **COMMON,
            "parent": LENGTH[:4] + LENGTH[5:],
            "tune": LENGTH,
            "masks": CHOICE,
            "sparsity": INSIDE[:-3] + INSIDE[-2:],
            "unit": CHOICE,
            "scope": CHOICE,
            "keep_dense": PATTERNS[1:],
            "lr": SCHEDULE,
            "tune_lr": (None, 0.1, "cosine", NAN),
            "tune_momentum": (0.9, "cosine", s.Constant(1.5)),
            "bag": (*SHARE, 0.0),
            "optimizer": OPTIMIZER,
        },
    ),
    "snapshot": (jt.snapshot, {}, {**TRAINED, "cycle": LENGTH[1:], "lr": RATE}),
    "fge": (
        jt.fge,
        {},
        {
            **TRAINED,
            "lr": SCHEDULE,
            "starts": (None, (), 0.5, "x", (0.8, 0.2), (NAN,), (0.5, "x"), (-0.1, 0.5), (0.5, 2.0)),
            "cycle": LENGTH,
            "high": RATE,
            "low": RATE,
        },
    ),
    "within_budget": (
        budget,
        {"methods": ["dense"], "members": [2]},
        {
            "training": (None, NAN, INF, -1, 0, True, "1", [1]),
            "sparsity": BELOW_1,
            "reference": (None, NAN, INF, -1, 0, True, "1", [1]),
            "members": (None, 3, "3", [0], [1.5], [None]),
            "methods": (None, 3, "dense", ["densest"], [None]),
            "shortest": (None, NAN, INF, -1, 0, True, "1", [1]),
        },
    ),
    "Length": (jt.Length, {"amount": 3}, {"amount": LENGTH, "unit": CHOICE}),
    "Length of steps": (jt.Length, {"unit": "steps"}, {"amount": (*LENGTH, 1.5)}),
    "Plan": (
        jt.Plan,
        {"name": "mine", "phases": (p.Start(), p.Collect())},
        {
            "name": (None, 3, "", True),
            "phases": (None, 3, "Start", p.Start(), [3]),
            "batch_size": COUNT,
            "reference": (3, "x"),
            "validation": VALIDATION,
        },
    ),
    "Start": (
        p.Start,
        {},
        {"width": COUNT, "sparsity": BELOW_1, "distribution": CHOICE, "keep_dense": PATTERNS},
    ),
    "Train": (
        p.Train,
        {"length": 3},
        {
            "length": LENGTH,
            "lr": SCHEDULE,
            "optimizer": OPTIMIZER,
            "evolve": ("rigl", 0.5, p.Evolve),
            "bag": (*SHARE, 0.0),
            "momentum": (0.9, "x"),
            "penalty": (0.1, "l1"),
        },
    ),
    "Escape": (p.Escape, {}, {"drop_fraction": SHARE, "growth": CHOICE, "regrown": CHOICE}),
    "Collect": (p.Collect, {}, {"which": CHOICE}),
    "Prune": (
        p.Prune,
        {"sparsity": 0.5},
        {"sparsity": INSIDE, "scores": CHOICE, "scope": CHOICE, "keep_dense": PATTERNS},
    ),
    "Remember": (p.Remember, {}, {"name": (None, 3, "", True, ["a"])}),
    "Rewind": (p.Rewind, {"name": "a"}, {"name": (None, 3, "", True, ["a"]), "keep": PATTERNS}),
    "Fork": (
        p.Fork,
        {"members": 2, "masks": "random"},
        {
            "members": COUNT,
            "masks": CHOICE,
            "sparsity": INSIDE[:-3] + INSIDE[-2:],
            "unit": CHOICE,
            "scope": CHOICE,
            "keep_dense": PATTERNS[1:],
        },
    ),
    "Evolve": (p.Evolve, {}, {**EVOLVE, "end": SHARE}),
    "Gradual": (
        p.Gradual,
        {"sparsity": 0.5},
        {"sparsity": BELOW_1, "begin": SHARE, "end": SHARE, "update_every": STEPS, "scope": CHOICE},
    ),
    "SGD": (
        p.SGD,
        {},
        {
            "momentum": BELOW_1,
            "nesterov": FLAG,
            "weight_decay": RATE,
            "overrides": (None, 3, "x", [3]),
        },
    ),
    "Adam": (
        p.Adam,
        {},
        {
            "b1": BELOW_1,
            "b2": BELOW_1,
            "eps": RATE,
            "weight_decay": RATE,
            "clip_norm": (NAN, INF, -1, 0, True, "1"),
            "overrides": (None, 3, "x", [3]),
        },
    ),
    "Override": (
        p.Override,
        {"pattern": "bn"},
        {"pattern": (None, 3, "["), "lr": RATE, "weight_decay": RATE[1:]},
    ),
    "L1": (
        p.L1,
        {"strength": 0.1},
        {"strength": RATE, "on": CHOICE, "share": INSIDE, "decoupled": FLAG},
    ),
    "Constant": (s.Constant, {}, {"value": RATE}),
    "Piecewise": (
        s.Piecewise,
        {"values": (0.1, 0.01), "until": (0.5,)},
        {
            "values": (None, 0.1, "x", (), (0.1,), (0.1, NAN), (0.1, "x"), (0.1, -1.0)),
            "until": (None, 0.5, (), (NAN,), ("x",), (1.0,), (0.0,)),
        },
    ),
    "Linear": (s.Linear, {"begin": 0.1}, {"begin": RATE, "end": RATE}),
    "Polyline": (
        s.Polyline,
        {"values": (0.1, 0.01), "at": (0, 1)},
        {
            "values": (None, 0.1, "x", (), (0.1,), (0.1, NAN), (0.1, "x"), (0.1, -1.0)),
            "at": (None, 0.5, (), (0, NAN), (0, "x"), (1, 0)),
        },
    ),
    "OneCycle": (s.OneCycle, {}, {"low": RATE, "high": RATE, "final": RATE, "rise": INSIDE}),
    "Cosine": (s.Cosine, {"begin": 0.1}, {"begin": RATE, "end": RATE, "reached": FLAG}),
    "Warmup": (
        s.Warmup,
        {"share": 0.1, "then": s.Constant(0.1)},
        {"share": INSIDE, "then": SCHEDULE},
    ),
    "Part": (
        s.Part,
        {"of": s.Constant(0.1), "begin": 0, "end": 1},
        {"of": SCHEDULE, "begin": SHARE, "end": SHARE},
    ),
    "AutoLayout": (
        jt.AutoLayout,
        {"group": 1},
        {
            "group": COUNT[1:],
            "across": CHOICE[1:],
            "measure": FLAG[1:],
            "memory": COUNT[1:],
        },
    ),
    "Layout": (
        jt.Layout,
        {"group": 1},
        {
            "group": COUNT,
            "steps_per_call": COUNT,
            "across": CHOICE,
            "mesh": (3, "mesh", [jax.devices()]),
        },
    ),
    "member_keys": (
        jt.member_keys,
        {"key": 0, "members": 2},
        {"key": (None, "0", 1.5, NAN, -1, 2**32, True, [0], 10**40), "members": COUNT},
    ),
    "WideResNet": (
        jt.models.WideResNet,
        {"depth": 10, "width": 1},
        {**NETWORK, "depth": COUNT, "width": COUNT},
    ),
    "ResNet": (
        jt.models.ResNet,
        {"depth": 18},
        {**NETWORK, "depth": COUNT, "width": COUNT, "stem": CHOICE},
    ),
    "DenseNet": (
        jt.models.DenseNet,
        {},
        {
            **NETWORK,
            "depth": (None, NAN, -3, 0, True, 1.5, "3", (0,), (1.5,), ()),
            "growth": COUNT,
            "stem": CHOICE,
        },
    ),
    "LeNet": (
        jt.models.LeNet,
        {},
        {
            **NETWORK,
            "size": (None, 3, "XL", (1, 2, 3), (1, 2, 3, 0), (1, 2, 3, 1.5), 1.5),
            "initial": CHOICE,
        },
    ),
    "TreeNet": (
        jt.models.TreeNet,
        {"net": jt.models.LeNet(), "members": 2},
        {**NETS, "branch_at": (3, "nowhere", ["conv2"])},
    ),
    "BatchEnsemble": (jt.models.BatchEnsemble, {"net": jt.models.LeNet(), "members": 2}, NETS),
    "MIMO": (
        jt.models.MIMO,
        {"net": jt.models.LeNet(), "members": 2},
        {**NETS, "batch_repetition": COUNT[:-1], "input_repetition": SHARE},
    ),
    "MCDropout": (
        jt.models.MCDropout,
        {"net": jt.models.LeNet(), "members": 2, "key": 0},
        {**NETS, "key": (None, "0", 1.5, -1, True, 2**32)},
    ),
    "classification": (
        classified,
        {},
        {
            "num_classes": (NAN, -3, 0, True, 1.5, "3", [3], 7),
            "label_smoothing": BELOW_1,
            "name": (3, "", ["a"]),
        },
    ),
    "classification's model": (
        jt.classification,
        {},
        {"model": (None, 3, "LeNet", jt.models.LeNet, (1, 2))},
    ),
    "regression": (jt.regression, {}, {"model": (None, 3, "LeNet", jt.models.LeNet)}),
    "network": (jt.models.network, {}, {"name": (None, 3, "", "LeNet", "LeNet(XL)", "open('x')")}),
    "from_arrays": (
        from_arrays,
        {},
        {
            "num_classes": (NAN, -3, 0, 1, True, 5.0, "5", [5]),
            "augment": (3, "flip"),
            "prepare": (3, "scale"),
            "name": (None, 3, ""),
            "class_names": (None, 3, "abcd", [1, 2, 3, 4], ["a"]),
            "buckets": (3, "x", [1.5]),
        },
    ),
}
CASES = [(name, argument) for name, (_, _, wrong) in TABLE.items() for argument in wrong]
PACKAGE = str(Path(jt.__file__).parent)
# What a person calls an argument that goes by another name further in.
ALSO = {
    "width": "members",
    "epochs": "length",
    "on": "on is",
    "model": "model",
    "name": "name",
    "amount": "length",
    "head": "keep",
    "escape": "drop_fraction",
    "refine_lr": "refine_lr",
    "collect": "which",
    "finetune_lr": "lr",
    "tune_momentum": "momentum",
    "phases": "phase",
}


def told(value):
    """How an error shows a value."""
    if isinstance(value, int) and abs(value) > 10**29:
        return (f"<an integer of {value.bit_length():,} bits>",)
    return (repr(value)[:30], str(value)[:30])


def said(call, value, argument):
    """What is raised, where no more than the call itself is to blame for it."""
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    message = str(caught.value)
    where = traceback.extract_tb(caught.value.__traceback__)[-1].filename
    assert where.startswith(PACKAGE), f"{argument}={value!r}: a raw error of {where}: {message}"
    return message


@pytest.mark.parametrize(("name", "argument"), CASES)
def test_a_wrong_argument_is_named_with_its_value(name, argument):
    call, good, wrong = TABLE[name]
    for value in wrong[argument]:
        message = said(lambda value=value: call(**{**good, argument: value}), value, argument)
        assert argument in message or ALSO.get(argument, argument) in message, (value, message)
        parts = value if isinstance(value, list | tuple) else ()
        assert any(word in message for one in (value, *parts) for word in told(one)), (
            value,
            message,
        )


@pytest.mark.parametrize("name", TABLE)
def test_the_table_would_do_with_the_right_arguments(name):
    call, good, wrong = TABLE[name]
    if set(wrong) - set(good) and name in (
        "Length of steps",
        "Remember",
        "Constant",
        "classification's model",
        "regression",
        "network",
    ):
        return  # every argument is needed, and is in the table
    call(**good)


# NumPy's numbers and Python's.
ALIKE = {
    "dst": (
        jt.dst,
        {
            "members": np.int64(3),
            "sparsity": np.float32(0.8),
            "epochs": np.float64(2),
            "update_every": np.int32(10),
            "end": np.float16(0.5),
        },
    ),
    "edst": (
        jt.edst,
        {
            "members": np.int8(2),
            "explore": np.int64(0),
            "lr": np.float32(0.1),
            "refine_lr": (np.float32(0.01), np.float64(1e-3)),
        },
    ),
    "imp": (jt.imp, {"members": np.uint8(2), "sparsity": np.float32(0.3), "rounds": np.int64(3)}),
    "multi_ticket": (
        jt.multi_ticket,
        {"tau": np.float32(1e-6), "sparsity": np.float32(0.3), "decoupled": np.bool_(True)},
    ),
    "ltr": (
        jt.ltr,
        {"rewind_to": np.float32(0.05), "epochs": np.int64(20), "scope": np.str_("global")},
    ),
    "prune_and_tune": (
        jt.prune_and_tune,
        {"members": np.int64(4), "parent": np.int64(0), "bag": np.float32(0.9)},
    ),
    "snapshot": (
        jt.snapshot,
        {"members": np.int64(2), "lr": np.float32(0.1), "cycle": np.int64(4)},
    ),
    "fge": (
        jt.fge,
        {
            "members": np.int64(2),
            "starts": (np.float32(0.6), np.float64(0.78)),
            "high": np.float32(0.05),
        },
    ),
    "Length": (jt.Length, {"amount": np.int64(3), "unit": "steps"}),
    "Piecewise": (s.Piecewise, {"values": np.array([0.1, 0.01]), "until": [np.float32(0.5)]}),
    "AutoLayout": (jt.AutoLayout, {"group": np.int64(2), "memory": np.int64(2**40)}),
    "Layout": (jt.Layout, {"group": np.int64(2)}),
    "WideResNet": (
        jt.models.WideResNet,
        {
            "depth": np.int64(10),
            "width": np.int32(1),
            "num_classes": np.int64(3),
            "dropout": np.float32(0.1),
        },
    ),
    "LeNet": (jt.models.LeNet, {"size": np.array([4, 4, 8, 8]), "num_classes": np.int64(3)}),
    "TreeNet": (jt.models.TreeNet, {"net": jt.models.LeNet(), "members": np.int64(2)}),
    "classification": (
        classified,
        {"num_classes": np.int64(10), "label_smoothing": np.float32(0.1)},
    ),
}


def in_python(value):
    if isinstance(value, np.ndarray):
        return tuple(value.tolist())
    if isinstance(value, tuple | list):
        return tuple(map(in_python, value))
    return (
        float(str(value))
        if isinstance(value, np.floating)
        else value.item()
        if isinstance(value, np.generic)
        else value
    )


@pytest.mark.parametrize("name", ALIKE)
def test_numpys_numbers_are_pythons(name):
    call, numpys = ALIKE[name]
    given, wanted = (
        call(**numpys),
        call(**{argument: in_python(value) for argument, value in numpys.items()}),
    )
    assert given == wanted
    assert repr(given) == repr(wanted)
    if isinstance(given, jt.Plan):
        assert json.dumps(given.to_json()) == json.dumps(wanted.to_json())
        assert jt.Plan.from_json(json.dumps(given.to_json())) == wanted


def test_a_float32_is_the_number_that_it_prints_as():
    assert jt.dst(sparsity=np.float32(0.8)).start.sparsity == 0.8
    assert jt.sparsity.num_kept(100, np.float32(0.29)) == jt.sparsity.num_kept(100, 0.29) == 71


def test_what_never_ended_is_refused():
    for make in (jt.edst, jt.snapshot, jt.fge, jt.dst):
        with pytest.raises(jt.PlanError, match="at most 10,000; got 1,000,000,000"):
            make(10**9)
    with pytest.raises(jt.PlanError, match="rounds is at most 10,000"):
        jt.imp(rounds=10**9)
    assert jt.edst(300).members == 300


def test_member_keys_take_what_fit_takes():
    for key in (
        np.int64(3),
        np.uint32(3),
        jnp.int32(3),
        np.array(3),
        jax.random.key(3),
        jax.random.PRNGKey(3),
    ):
        assert (
            jax.random.key_data(jt.member_keys(key, np.int64(2)))
            == jax.random.key_data(jt.member_keys(3, 2))
        ).all()
