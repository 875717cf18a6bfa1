"""Scores in a transform, which sees weights and gradients, and a loss where it is handed one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jaxtickets.errors import MaskError
from jaxtickets.masks.scores import Score, get

PyTree = Any


def known_score(transform: str, argument: str, score: str | Score, given: frozenset[str]) -> Score:
    """The score, if a transform can compute it.

    Args:
      transform: its name, for people.
      argument: which of its arguments names the score.
      score: a name or a `Score`.
      given: which fields of `ScoreInputs` the transform has.
    """
    found = get(score, argument)
    if missing := sorted(found.needs - given - {"loss"}):
        raise MaskError(
            f"{transform}: {argument}={found.name!r} needs {', '.join(missing)}, which a transform"
            " does not see. Prune by it between two trainings, with"
            " jaxtickets.masks.prune_by_scores."
        )
    return found


def loss_of(transform: str, score: Score, extra: Mapping[str, Any]) -> Callable[..., Any] | None:
    """The loss that a score needs: optax's extra argument `value_fn`; None where none is needed."""
    if "loss" not in score.needs:
        return None
    value_fn = extra.get("value_fn")
    if not callable(value_fn):
        raise MaskError(
            f"{transform}: the score {score.name!r} needs the loss as a function of the params:"
            " call tx.update(grads, state, params, value_fn=loss)."
        )
    return value_fn
