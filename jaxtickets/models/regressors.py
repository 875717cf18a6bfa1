"""Makes a task of learning a number: `regression`."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxtickets.masks import KERNELS, Rules
from jaxtickets.models.features import features_of
from jaxtickets.models.heads import Heads
from jaxtickets.models.tasks import Model, check_of, functions, name_of
from jaxtickets.task import Task


def regression(
    model: Model, *, prunable: Rules = KERNELS, name: str | None = None, fixed_state: bool = False
) -> Task:
    """The task of telling a number with `model`, trained by squared error.

    The loss of one example with target y and output z is `(z - y)^2`, in float32. An ensemble
    predicts the mean of its members.

    Args:
      model: as `classification` takes it, with one output per example: [B] or [B, 1].
      prunable: path rules for what a mask may cover.
      name: what a run folder calls it; by default made of the model's fields.
      fixed_state: state is meant to stay as it is in training (see `Task`).

    Returns:
      A `Task` without classes. Two calls with equal models return equal tasks.

    Raises:
      ValueError: if the model has classes.
      TypeError: if `model` is no model, or one of several heads.

    >>> from jaxtickets.models import TextClassifier, TransformerConfig
    >>> regression(TextClassifier(TransformerConfig(), num_classes=None)).name
    'TextClassifier(bert 12x768, num_classes=None)'
    """
    if isinstance(model, Heads):
        raise TypeError(
            f"regression: model must have one output per example; {type(model).__name__} has"
            " several heads. Give model=net."
        )
    init, apply = functions(model, "regression")
    classes = getattr(model, "num_classes", None)
    if classes is not None:
        raise ValueError(
            f"regression: the model tells {classes} classes apart. Give it num_classes=None, or"
            " write classification(model)."
        )
    if name is not None and (not isinstance(name, str) or not name):
        raise ValueError(
            f"regression: name is what a run folder calls the task, or None; got {name!r:.80}."
        )
    title = name_of(model) if name is None else name
    return Task(
        init,
        apply,
        squared_error,
        value,
        prunable,
        None,
        title,
        features=features_of(model),
        check=check_of(model),
        fixed_state=fixed_state,
    )


def value(outputs: jax.Array) -> jax.Array:
    """The prediction of each example: outputs [B] or [B, 1] to float32 [B].

    Raises:
      ValueError: outputs of another shape.
    """
    if not (outputs.ndim == 1 or (outputs.ndim == 2 and outputs.shape[1] == 1)):
        raise ValueError(
            f"regression: the model's outputs have the shape {list(outputs.shape)}; one number per"
            " example is [B] or [B, 1]."
        )
    return outputs.reshape(-1).astype(jnp.float32)


def squared_error(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Squared error of each example, float32 [B].

    >>> squared_error(jnp.array([[1.0], [3.0]]), jnp.array([1.5, 5.0])).tolist()
    [0.25, 4.0]
    """
    return jnp.square(value(outputs) - y.astype(jnp.float32))
