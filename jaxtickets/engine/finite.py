"""Whether numbers are finite while a network trains, and what probably made them not so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import masks
from jaxtickets.dataset import Dataset, Stream
from jaxtickets.errors import DataError, NonFiniteLoss
from jaxtickets.plan import Plan, describe

PyTree = Any

HUGE = 1e4
"""Inputs and targets beyond this are told of where a loss was not finite."""


def check_finite(
    plan: Plan,
    phase: int,
    who: Sequence[Any],
    bad_steps: Sequence[int],
    kept: str = "",
    data: Dataset | None = None,
) -> None:
    """Raise `NonFiniteLoss` if a member's loss was not finite at some step (counted from 1 over the
    plan; -1 for none).

    `kept` says where earlier tickets are; `data` is what it trained on, if that is in memory: it is
    looked through for what may be the cause.
    """
    for member, bad in zip(who, bad_steps, strict=True):
        if bad >= 0:
            raise NonFiniteLoss(
                f"the loss of member {member} became NaN or infinite at step {bad}, in phase"
                f" {phase + 1}, {describe(plan.phases[phase])}. {_cause(data, bad)}{kept}"
            )


def _cause(data: Dataset | None, step: int) -> str:
    """What probably made a loss NaN or infinite, and the cure."""
    wrong = "" if data is None else wrong_inputs(data)
    if wrong:
        return wrong
    if step > 1:
        return "A lower learning rate or a warm-up is the usual cure."
    looked = (
        "The examples are finite after prepare"
        if data is not None
        else "Look at the batches of the stream first"
    )
    return (
        f"Before the first step no weight has changed, so it is not the learning rate. {looked};"
        " look at the labels, at augment, at the loss, and at the weights it starts from."
    )


def wrong_inputs(data: Dataset, rows: int = 256) -> str:
    """Examples that are NaN, infinite or huge as the network gets them, in words; nothing where all
    are as they should be.
    """
    lost: dict[str, list[int]] = {}
    largest: dict[str, float] = {}
    for first in range(0, len(data), rows):
        try:
            x = jax.device_get(
                data.prepare(jax.tree.map(lambda a, i=first: np.asarray(a[i : i + rows]), data.x))
            )
        except Exception:  # whatever prepare says, it has worked in training
            return ""
        for path, leaf in zip(masks.leaf_paths(x), jax.tree.leaves(x), strict=True):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                continue
            flat = np.abs(np.asarray(leaf, np.float32).reshape(len(leaf), -1))
            bad = ~np.isfinite(flat).all(1)
            lost.setdefault(path, []).extend((first + np.flatnonzero(bad)).tolist())
            largest[path] = max(largest.get(path, 0.0), float(flat[~bad].max(initial=0)))
    for path, found in lost.items():
        if found:
            where = f"x{'/' if path else ''}{path} of example {found[0]}"
            return (
                f"{data.name}: {where} ({len(found)} of {len(data)} examples) is NaN or infinite"
                " after prepare: mend prepare or the data."
            )
    for path, most in largest.items():
        if most > HUGE:
            return (
                f"{data.name}: x{'/' if path else ''}{path} reaches {most:.3g} after prepare, where"
                " networks expect numbers around 1: standardise it in prepare."
            )
    if (
        data.num_classes is None
        and len(data)
        and (most := float(np.abs(np.asarray(data.y, np.float64)).max())) > HUGE
    ):
        return (
            f"{data.name}: the targets reach {most:.3g}, and the loss their squares: scale them to"
            " around 1."
        )
    return ""


def check_prepared(data: Dataset | Stream, example: PyTree) -> None:
    """Raise `DataError` where the first examples are NaN or infinite as the network gets them."""
    for path, leaf in zip(masks.leaf_paths(example), jax.tree.leaves(example), strict=True):
        if (
            jnp.issubdtype(leaf.dtype, jnp.floating)
            and not np.isfinite(np.asarray(leaf, np.float32)).all()
        ):
            how = "after prepare" if isinstance(data, Dataset) else "as the stream gives it"
            raise DataError(
                f"{data.name}: x{'/' if path else ''}{path} of the first example is NaN or infinite"
                f" {how}."
            )


def is_finite(tree: PyTree) -> bool:
    """Whether every number in arrays on the host is finite."""
    return all(
        bool(np.isfinite(leaf).all())
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    )
