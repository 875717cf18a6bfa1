"""Parts of `benchmark.py` about Prune and Tune: shrinking children, and memory for many.

What shrinking neuron-pruned children buys, and what many of them cost in memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from support.peak import peak_megabytes

import jaxtickets as jt
from jaxtickets import masks
from jaxtickets.masks.units import find_units, random_units, unit_mask

MODELS = {"LeNet-L": jt.models.LeNet("L"), "WRN-16-4": jt.models.WideResNet(16, 4)}


def shrunk_children(batch: tuple[jax.Array, jax.Array]) -> dict[str, dict[str, Callable[[], Any]]]:
    """Per network, calls of a parent, of a masked child and of the same child shrunk.

    The child has 50 % of the neurons. Each call is a forward pass or a gradient: "forward parent",
    "forward masked", "forward shrunk", "gradient parent", ...
    """
    calls = {}
    x, y = batch
    for name, model in MODELS.items():
        task, key = jt.classification(model), jax.random.key(0)
        params, state = task.init(key, x[:1])
        spec = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
        units = find_units(task.apply, params, state, spec)
        mask = unit_mask(units, random_units(key, units, 0.5))
        ticket = jt.Ticket(masks.apply(mask, params), mask, state, {})
        small = jt.shrink(jt.TicketEnsemble(task, (ticket,), spec)).tickets[0]
        networks = {
            "parent": (params, state),
            "masked": (ticket.params, state),
            "shrunk": (small.params, small.model_state),
        }

        def predict(p: Any, s: Any, task: jt.Task = task) -> jax.Array:
            return task.apply(p, s, x, False, None)[0]

        def gradient(p: Any, s: Any, task: jt.Task = task) -> Any:
            return jax.grad(
                lambda p: jnp.mean(task.loss(task.apply(p, s, x, True, jax.random.key(1))[0], y))
            )(p)

        calls[name] = {}
        for which, network in networks.items():
            for kind, function in (("forward", jax.jit(predict)), ("gradient", jax.jit(gradient))):
                args = jax.tree.map(jnp.asarray, network)
                calls[name][f"{kind} {which}"] = lambda function=function, args=args: function(
                    *args
                )
        masked, shrunk = calls[name]["forward masked"](), calls[name]["forward shrunk"]()
        if not bool(jnp.allclose(masked, shrunk, rtol=1e-4, atol=1e-4)):
            raise SystemExit(f"{name}: the shrunk child does not predict what the masked one does")
    return calls


_ONE_RUN = """
import sys, numpy as np, jaxtickets as jt
members, folder = int(sys.argv[1]), sys.argv[2]
rng = np.random.default_rng(0)
data = rng.normal(size=(512, 32, 32, 3)).astype(np.float32), rng.integers(0, 10, 512)
step = jt.Length(1, "steps")
plan = jt.prune_and_tune(members, step, step, batch_size=64)
task = jt.classification(jt.models.LeNet("M"))
jt.fit(plan, task, data, key=0, out=folder, layout=jt.Layout(1, "unroll"), progress=False)
"""


def children_megabytes(members: int) -> float:
    """Peak memory in megabytes of a run that makes and tunes that many children.

    They are children of a LeNet-M, made and tuned one at a time.
    """
    with tempfile.TemporaryDirectory() as folder:
        return peak_megabytes(_ONE_RUN, str(members), folder)
