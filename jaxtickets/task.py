"""A task: what a network is and what it should learn, as four pure functions.

Everything below the models sees only this, so Linen modules, NNX modules and bare functions enter by one door.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from jaxtickets.masks import KERNELS, Rules

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Task:
    """How to make, run and judge one network.

    Args:
      init: `(key, x [B, ...]) -> (params, model_state)`; `model_state` (batch statistics) may be an empty dict.
      apply: `(params, model_state, x, train, key) -> (outputs [B, ...], model_state)`. `train` is a static bool and
        `key` feeds dropout (None when not training).
      loss: `(outputs, y) -> [B]`, one number per example, float32.
      log_proba: `outputs -> [B, C]`, log-probabilities; for regression the prediction itself, [B].
      prunable: path rules for what a mask may cover (see `jaxtickets.masks`).
      num_classes: C; None for regression.
      name: what a run folder calls it.
    """

    init: Callable[[jax.Array, PyTree], tuple[PyTree, PyTree]]
    apply: Callable[..., tuple[PyTree, PyTree]]
    loss: Callable[[PyTree, jax.Array], jax.Array]
    log_proba: Callable[[PyTree], jax.Array]
    prunable: Rules = KERNELS
    num_classes: int | None = None
    name: str = "task"
