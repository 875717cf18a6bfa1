"""What masks cost in a training step: against plain steps, vmapped, and against PyTorch."""

from __future__ import annotations

from typing import Any

import jax
import optax
from benchmarks.networks import NETWORKS, images, optimizer
from benchmarks.timing import Row, Stepper, row, take_turns
from rich.console import Console

import jaxtickets as jt
from jaxtickets.masks import sparsity
from jaxtickets.transforms import keep_masked, prune_grow


def steps(batch_size: int, rounds: int) -> list[Row]:
    """A masked network's step against the same network and optimizer without masks."""
    rows = []
    batch = images(batch_size)
    for name, (model, kind) in NETWORKS.items():
        task, key = jt.classification(model), jax.random.key(0)
        params, _ = jax.eval_shape(task.init, key, batch[0][:1])
        mask = sparsity.random_mask(key, params, 0.8)
        growing = Stepper(
            task, prune_grow(optimizer(kind), mask=mask, update_every=100, key=key), batch
        )
        alternatives = {
            "plain": Stepper(task, optimizer(kind), batch),
            "keep": Stepper(task, keep_masked(optimizer(kind), mask), batch),
            "off": growing.at(0),
            "update": growing.at(99),
        }
        seconds = take_turns(alternatives, rounds)
        evolving = (99 * seconds["off"] + seconds["update"]) / 100
        rows.append(
            row(
                f"{name}: keep_masked step / plain step",
                seconds["keep"],
                seconds["plain"],
                "<=",
                1.05,
            )
        )
        rows.append(
            row(
                f"{name}: prune_grow step (Delta T 100, updates counted in) / plain step",
                evolving,
                seconds["plain"],
                "<=",
                1.10,
            )
        )
    return rows


def vmapped_loop(rounds: int) -> list[Row]:
    """Four vmapped members in a user's own loop, with prune_grow and with keep_masked.

    What is timed is a step between mask updates.
    """
    keys = jax.random.split(jax.random.key(0), 4)
    params = jax.vmap(lambda key: {"kernel": jax.random.normal(key, (1024, 1024))})(keys)
    inner = optax.sgd(0.1, momentum=0.9)
    steps = {}
    for name in ("prune_grow", "keep_masked"):

        def transform(key: jax.Array, name: str = name) -> optax.GradientTransformationExtraArgs:
            mask = sparsity.random_mask(key, {"kernel": params["kernel"][0]}, 0.8)
            return (
                prune_grow(inner, mask=mask, update_every=1000, key=key)
                if name == "prune_grow"
                else keep_masked(inner, mask)
            )

        state = jax.vmap(lambda key, p, make=transform: make(key).init(p))(keys, params)

        @jax.jit
        def step(params: Any, state: Any, make: Any = transform) -> Any:
            return jax.vmap(lambda key, p, s: make(key).update(p, s, p))(keys, params, state)

        steps[name] = lambda step=step, state=state: step(params, state)
    seconds = take_turns(steps, 3 * rounds)
    return [
        row(
            "4 vmapped members, step between mask updates: prune_grow / keep_masked",
            seconds["prune_grow"],
            seconds["keep_masked"],
            "<=",
            1.10,
        )
    ]


def against_torch(batch_size: int, rounds: int) -> list[Row]:
    """A masked training step against the same in PyTorch eager; above 1 is faster than PyTorch."""
    try:
        import torch
        from benchmarks.torch_networks import TorchStepper
    except ImportError:
        Console(stderr=True).print("PyTorch is not installed; its rows are left out.")
        return []
    torch.set_num_threads(2)
    rows = []
    batch = images(batch_size)
    for name, (model, kind) in NETWORKS.items():
        task, key = jt.classification(model), jax.random.key(0)
        params, _ = jax.eval_shape(task.init, key, batch[0][:1])
        ours = Stepper(
            task, keep_masked(optimizer(kind), sparsity.random_mask(key, params, 0.8)), batch
        )
        alternatives = {
            "jax": ours,
            "torch": TorchStepper(name, kind, batch),
            "last": TorchStepper(name, kind, batch, channels_last=True),
        }
        seconds = take_turns(alternatives, rounds)
        bound = {"LeNet-L": 0.7, "WRN-16-4": 0.6}[name]
        rows.append(
            row(
                f"{name} masked step: speed relative to PyTorch eager",
                seconds["jax"],
                seconds["torch"],
                ">=",
                bound,
            )
        )
        rows.append(
            row(
                f"{name} masked step: relative to PyTorch eager, channels_last",
                seconds["jax"],
                seconds["last"],
                ">=",
                None,
            )
        )
    return rows
