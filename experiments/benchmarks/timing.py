"""What the benchmarks share: alternatives in turns, ratios as rows, and a training step to time."""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jaxtickets as jt
from jaxtickets import masks
from jaxtickets.masks import sparsity


@dataclasses.dataclass(frozen=True)
class Row:
    """One ratio: `measured` seconds against `against` seconds."""

    what: str
    measured: float
    against: float
    ratio: float
    wanted: str
    met: bool


def take_turns(alternatives: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each alternative, one call each per round after one round unmeasured."""
    seconds: dict[str, list[float]] = {name: [] for name in alternatives}
    for turn in range(rounds + 1):
        for name, call in alternatives.items():
            began = time.perf_counter()
            jax.block_until_ready(call())
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in seconds.items()}


def row(what: str, measured: float, against: float, sense: str, bound: float | None) -> Row:
    """A row whose ratio is `measured / against` ("<=") or the other way round (">=").

    With ">=" the ratio is how many times faster.
    """
    ratio = measured / against if sense == "<=" else against / measured
    met = True if bound is None else (ratio <= bound if sense == "<=" else ratio >= bound)
    return Row(what, measured, against, ratio, "" if bound is None else f"{sense} {bound:g}", met)


def training_seconds(plan: jt.Plan, task: jt.Task, data: Any) -> float:
    """Seconds that a run of the plan trains, by its own clock; compiling not counted."""
    with tempfile.TemporaryDirectory() as folder:
        jt.fit(plan, task, data, key=0, out=folder, progress=False)
        return json.loads((Path(folder) / "timing.json").read_bytes())["seconds"]["train"]


class Stepper:
    """A jitted training step with its state; calling it takes one step.

    A share of the weights, drawn at random, is pruned; or it is of the params and model state of a
    `network`.
    """

    def __init__(
        self,
        task: jt.Task,
        tx: optax.GradientTransformation,
        batch: tuple[Any, jax.Array],
        share: float = 0.8,
        network: tuple[Any, Any] | None = None,
    ) -> None:
        key = jax.random.key(0)
        if network is None:
            params, self.model_state = task.init(key, jax.tree.map(lambda a: a[:1], batch[0]))
            drawn = sparsity.random_mask(key, params, share, rules=task.prunable)
            self.params = masks.apply(drawn, params)
        else:  # copies: the step takes over the memory of what it is given
            self.params, self.model_state = jax.tree.map(jnp.array, network)
        self.state: Any = tx.init(self.params)
        self.batch = batch

        def step(
            params: Any, model_state: Any, state: Any, x: Any, y: jax.Array
        ) -> tuple[Any, Any, Any, jax.Array]:
            def loss(params: Any) -> tuple[jax.Array, Any]:
                outputs, new_state = task.apply(params, model_state, x, True, key)
                return task.loss(outputs, y).mean(), new_state

            (value, new_state), grads = jax.value_and_grad(loss, has_aux=True)(params)
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), new_state, state, value

        self.step = jax.jit(step, donate_argnums=(0, 1, 2))

    def __call__(self) -> jax.Array:
        """Take one training step and return the loss."""
        self.params, self.model_state, self.state, value = self.step(
            self.params, self.model_state, self.state, *self.batch
        )
        return value

    def at(self, count: int) -> Callable[[], jax.Array]:
        """A function that takes a step as if `count` steps had gone before."""

        def call() -> jax.Array:
            self.state = self.state._replace(count=jnp.int32(count))
            return self()

        return call
