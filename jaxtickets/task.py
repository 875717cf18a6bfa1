"""A task: what a network is and what it should learn, as four pure functions.

Everything below the models sees only this, so Linen modules, NNX modules and bare functions enter
by one door.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxtickets.masks import KERNELS, Rules, check_rules
from jaxtickets.messages import checks

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Task:
    """How to make, run and judge one network.

    Args:
      init: `(key, x [B, ...]) -> (params, model_state)`; `model_state` (batch statistics) may be an
        empty dict.
      apply: `(params, model_state, x, train, key) -> (outputs [B, ...], model_state)`. `train` is a
        static bool and `key` feeds dropout (None when not training).
      loss: `(outputs, y) -> [B]`, one number per example, float32.
      log_proba: `outputs -> [B, C]`, log-probabilities; for regression the prediction itself, [B].
        With H > 1 heads [H, B, C] (regression [H, B]), each head's own, in training too.
      prunable: path rules for what a mask may cover (see `jaxtickets.masks`).
      num_classes: C; None for regression.
      name: what a run folder calls it.
      heads: H, how many predictions of each example one network gives (MIMO, BatchEnsemble, ...):
        all heads of all tickets are members of the ensemble's prediction.
      plain: the ordinary network that the costs of this one are compared with; None where it is one
        itself.
      features: `(params, model_state, x) -> {layer: [B, ...]}`, what its layers give in evaluation,
        in order of depth, channels last; None where that is not known.
      check: `(x, name, first)` raises `DataError` where the host's arrays x [N, ...], as the
        network takes them, hold values that mean nothing to it; an error calls them `name`, and
        their first row is number `first`. None for no check of its own: that row numbers of tables
        are in range is checked of every network.
      fixed_state: `model_state` is meant to stay as it is in training: constants, or batch
        statistics that are frozen. Where it is not, a network whose training never changes it is
        refused.
    """

    init: Callable[[jax.Array, PyTree], tuple[PyTree, PyTree]]
    apply: Callable[..., tuple[PyTree, PyTree]]
    loss: Callable[[PyTree, jax.Array], jax.Array]
    log_proba: Callable[[PyTree], jax.Array]
    prunable: Rules = KERNELS
    num_classes: int | None = None
    name: str = "task"
    heads: int = 1
    plain: Task | None = None
    features: Callable[[PyTree, PyTree, PyTree], dict[str, jax.Array]] | None = None
    check: Callable[[PyTree, str, int], None] | None = None
    fixed_state: bool = False

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        check_name("Task", self.name)
        check_rules(self.prunable)
        # a list of rules too is a part of the key under which programs are kept
        object.__setattr__(self, "prunable", tuple(map(tuple, self.prunable)))
        if self.plain is not None and not isinstance(self.plain, Task):
            raise TypeError(
                f"{self.name}: plain is a Task, or None; got {checks.shown(self.plain)}."
            )
        if self.features is not None and not callable(self.features):
            raise TypeError(
                f"{self.name}: features is a function, or None; got {checks.shown(self.features)}."
            )
        for name in ("init", "apply", "loss", "log_proba"):
            if not callable(getattr(self, name)):
                raise TypeError(
                    f"{self.name}: {name} is a function (see Task); got"
                    f" {checks.shown(getattr(self, name))}."
                )
        if self.num_classes is not None and not (
            checks.is_int(self.num_classes) and 1 <= self.num_classes <= checks.LONGEST
        ):
            given = checks.shown(self.num_classes)
            raise ValueError(
                f"{self.name}: num_classes is a number of classes, at least 1, or None for a"
                f" regression; got {given}."
            )
        if not checks.is_int(self.heads) or not 1 <= self.heads <= checks.MOST:
            given = checks.shown(self.heads)
            raise ValueError(
                f"{self.name}: heads is how many predictions one network gives of an example, at"
                f" least 1; got {given}."
            )


def check_name(caller: str, name: Any) -> None:
    """Raise `ValueError` unless it can be what a run folder calls a task."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"{caller}: name is a text; got {checks.shown(name)}.")


def mixed_log_proba(task: Task, outputs: PyTree) -> jax.Array:
    """What one network predicts: log of the mean of its heads' probabilities, [B, C]; for
    regression their mean, [B].
    """
    each = task.log_proba(outputs)
    return each if task.heads == 1 else mean_of_heads(task, each)


def mean_of_heads(task: Task, each: jax.Array) -> jax.Array:
    """Log of the mean of the heads' probabilities, [H, B, C] -> [B, C]; for regression the mean,
    [H, B] -> [B].
    """
    if task.num_classes is None:
        return jnp.mean(each, 0)
    return jax.nn.logsumexp(each, axis=0) - jnp.log(jnp.float32(each.shape[0]))
