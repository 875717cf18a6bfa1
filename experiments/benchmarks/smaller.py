"""Parts of `benchmark.py` about smaller networks: half the units gone, cut out against masked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from benchmarks import texts
from benchmarks.timing import Row, Stepper, row, take_turns, training_seconds

import jaxtickets as jt
from jaxtickets import masks
from jaxtickets.masks.units import find_units, random_units, unit_mask
from jaxtickets.transforms import keep_masked

HALF = 0.5


def halved(task: jt.Task, x: Any, members: int = 1) -> tuple[jt.TicketEnsemble, jt.TicketEnsemble]:
    """Networks with half the units of every layer: masked, and the same cut down to them."""
    key = jax.random.key(0)
    params, state = task.init(key, jax.tree.map(lambda a: a[:1], x))
    x_spec = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)
    units = find_units(task.apply, params, state, x_spec, task.prunable)
    tickets = []
    for member in range(members):
        mask = unit_mask(units, random_units(jax.random.fold_in(key, member), units, HALF))
        tickets.append(jt.Ticket(masks.apply(mask, params), mask, state, {}))
    wide = jt.TicketEnsemble(task, tuple(tickets), x_spec)
    return wide, jt.shrink(wide)


def steppers(task: jt.Task, tx: optax.GradientTransformation, batch: Any) -> dict[str, Stepper]:
    """The training step of the masked network, and that of the smaller one."""
    both = halved(task, batch[0])
    return {
        name: Stepper(
            task,
            keep_masked(tx, ticket.mask),
            batch,
            network=(ticket.params, ticket.model_state),
        )
        for name, (ticket,) in zip(("masked", "smaller"), (e.tickets for e in both), strict=True)
    }


def image_steps(
    name: str,
    task: jt.Task,
    tx: optax.GradientTransformation,
    batch: Any,
    torch_stepper: Callable[[], Any] | None,
    rounds: int,
) -> list[Row]:
    """A training step with half the channels gone, against the masked step and PyTorch's."""
    alternatives: dict[str, Any] = steppers(task, tx, batch)
    if torch_stepper is not None:
        alternatives["torch"] = torch_stepper()
    seconds = take_turns(alternatives, rounds)
    label = f"{name}, half the channels cut out, training step: times faster than"
    rows = [row(f"{label} masked", seconds["smaller"], seconds["masked"], ">=", 2.5)]
    if torch_stepper is not None:
        bound = {"WRN-16-4": 1.5, "LeNet-L": 2.0}[name]
        whole = f"{label} PyTorch eager's masked step of the whole network, channels_last"
        rows.append(row(whole, seconds["smaller"], seconds["torch"], ">=", bound))
    return rows


def text_steps(rounds: int, examples: int = 32, tokens: int = 128) -> list[Row]:
    """A fine-tuning step of a BERT without half its heads and feed-forward units."""
    batch = jax.tree.map(jnp.asarray, texts.token_batch(texts.SMALL, examples, tokens))
    adamw = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(2e-5, weight_decay=0.0))
    seconds = take_turns(steppers(texts.network(texts.SMALL), adamw, batch), rounds)
    label = "BERT 6x384, half of heads and feed-forward units cut out, fine-tuning step"
    return [
        row(f"{label}: times faster than masked", seconds["smaller"], seconds["masked"], ">=", 1.7)
    ]


def predictions(name: str, task: jt.Task, x: jax.Array, rounds: int) -> list[Row]:
    """Predictions of three tickets with half the channels, against one whole network's."""
    wide, small = halved(task, x, members=3)
    images = np.asarray(x)
    calls = {
        "three": lambda: small.member_log_proba(images, len(images)),
        "one": lambda: wide[:1].member_log_proba(images, len(images)),
    }
    seconds = take_turns(calls, rounds)
    bound = {"WRN-16-4": 1.1, "LeNet-L": 1.3}[name]
    label = f"{name}, predictions of three tickets of half the channels / of one dense network"
    return [row(label, seconds["three"], seconds["one"], "<=", bound)]


def exploring_run(rounds: int) -> list[Row]:
    """A whole EDST run of three tickets that loses two fifths of its channels, against masked.

    Training seconds without compiling, of the run's own clock.
    """
    rng = np.random.default_rng(0)
    data = rng.normal(size=(2560, 32, 32, 3)).astype(np.float32), rng.integers(0, 10, 2560)
    task, seconds = jt.classification(jt.models.LeNet("M")), {0.0: [], 0.4: []}
    for _ in range(max(1, rounds // 3)):
        for channels, times in seconds.items():
            plan = jt.edst(
                3, explore=10, refine=7, channels=channels, update_every=20, batch_size=128
            )
            times.append(training_seconds(plan, task, data))
    whole, smaller = (float(np.median(times)) for times in seconds.values())
    label = "LeNet-M, EDST run of three tickets with channels=.4: times faster than masked"
    return [row(label, smaller, whole, ">=", 1.3)]
