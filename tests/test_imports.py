"""Importing costs what is used and does nothing."""

import subprocess
import sys

import pytest

HEAVY = (
    "orbax",
    "transformers",
    "tensorflow_datasets",
    "sklearn",
    "matplotlib",
    "torch",
    "safetensors",
    "onnx",
    "onnxruntime",
    "jax2onnx",
    "grain",
    "PIL",
    "flax",
)


def in_a_fresh_process(code):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("statement", "needs"),
    [
        ("import jaxtickets", ()),
        ("import jaxtickets.transforms", ()),
        ("import jaxtickets as jt; jt.transforms.prune_grow; jt.edst(); jt.Layout(1)", ()),
        ("import jaxtickets.engine, jaxtickets.tickets.ensemble, jaxtickets.tickets", ()),
        (
            "import jaxtickets as jt; jt.fit; jt.load; jt.cost; jt.classification; jt.evaluate; jt.data",
            ("flax",),
        ),
    ],
)
def test_an_import_pulls_in_what_it_needs_and_starts_nothing(statement, needs):
    code = f"""
import sys
import numpy, jax
from jax._src import xla_bridge
before = (str(numpy.random.get_state()), {{name: value for name, value in jax.config.values.items()}})
{statement}
after = (str(numpy.random.get_state()), {{name: value for name, value in jax.config.values.items()}})
print(before == after, xla_bridge.backends_are_initialized(), *[name for name in {HEAVY} if name in sys.modules])
"""
    assert in_a_fresh_process(code) == ["True", "False", *needs]


def test_public_names_are_there_and_others_are_an_attribute_error():
    import jaxtickets as jt

    for name in jt.__all__:
        if name != "report":
            assert getattr(jt, name) is not None
            assert name in dir(jt)
    with pytest.raises(AttributeError, match="nothing"):
        _ = jt.nothing
