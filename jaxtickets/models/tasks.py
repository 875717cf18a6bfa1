"""Makes a task of a Linen module, an NNX or Equinox factory, or functions: `classification`.

The functions of a task are small frozen dataclasses, so tasks made of equal models are equal and
share compiled code.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
from flax import linen, nnx

from jaxtickets.masks import KERNELS, Rules
from jaxtickets.messages import checks
from jaxtickets.models.equinox_task import (
    EquinoxApply,
    EquinoxInit,
    is_equinox_factory,
    is_equinox_module,
)
from jaxtickets.models.features import features_of
from jaxtickets.models.heads import Heads, by_example
from jaxtickets.models.linen_task import LinenApply as LinenApply
from jaxtickets.models.linen_task import LinenInit
from jaxtickets.models.nnx_task import NNXApply, NNXInit
from jaxtickets.task import PyTree, Task

Model = linen.Module | Callable[..., Any] | tuple[Callable[..., Any], Callable[..., Any]]
_KINDS = "a Linen module, a factory (rngs -> nnx.Module, or key -> eqx.Module) or (init, apply)"


def classification(
    model: Model,
    *,
    num_classes: int | None = None,
    label_smoothing: float = 0.0,
    prunable: Rules = KERNELS,
    name: str | None = None,
    fixed_state: bool = False,
) -> Task:
    """The task of telling C classes apart with `model`, trained by softmax cross-entropy.

    The loss of one example with label y and logits z is `-sum_c q_c log softmax(z)_c`, in float32,
    where `q = (1 - s) onehot(y) + s / C` and s is `label_smoothing`.

    Args:
      model: one of
        - a Linen module called as `model(x, train)`, or with whatever `jaxtickets.models.modes`
          knows as that flag (`training`, `deterministic`, `use_running_average`, `inference`, ...),
          as an argument or as a field; dropout draws from the stream "dropout", and other streams
          have keys of their own; what is sown is not kept. Or one of several heads (`TreeNet`,
          `BatchEnsemble`, `MIMO`, `MCDropout`);
        - a factory `rngs -> nnx.Module`, called as `model(x)` in train or eval mode, and with that
          flag where it takes one;
        - a factory `key -> eqx.Module` (a class with `__init__(self, key)` is one), called under
          `jax.vmap` as `model(x)`, an example at a time, with `inference` switched; with `key`
          where `__call__` has that argument (dropout; None in evaluation), and with `state` where
          layers have state (batch norm), then giving `(outputs, state)`. Equinox need not be
          installed for anything else;
        - a pair `(init, apply)` of functions with the signatures of `Task`.
      num_classes: C; by default `model.num_classes`.
      label_smoothing: s, in [0, 1).
      prunable: path rules for what a mask may cover.
      name: what a run folder calls it; by default made of the model's fields.
      fixed_state: batch statistics and other state are meant to stay as they are in training (see
        `Task`).

    Returns:
      A `Task`. Two calls with equal Linen models (or the same factory or functions) return equal
      tasks.

    Raises:
      ValueError: if C is not known or differs from the model's, or `label_smoothing` is outside [0,
        1).
      TypeError: if `model` is none of these, or an Equinox module that is made already: each ticket
        needs weights of its own.

    >>> from jaxtickets.models import WideResNet
    >>> classification(WideResNet(28, 10)).name
    'WideResNet(28, 10)'
    >>> classification(WideResNet(28, 10)) == classification(WideResNet(28, 10))
    True
    """
    init, apply = functions(model, "classification")
    model_classes = getattr(model, "num_classes", None)
    classes: Any = model_classes if num_classes is None else num_classes
    if classes is None:
        raise ValueError(
            "classification: num_classes is needed, because this model has no attribute"
            " num_classes; got None. Write classification(model, num_classes=10), or give the model"
            " a field num_classes: int = 10."
        )
    classes, label_smoothing = checks.plain((classes, label_smoothing))
    if not checks.is_int(classes) or not 2 <= classes <= checks.LONGEST:
        raise ValueError(
            "classification: num_classes is a whole number of at least 2, got"
            f" {checks.shown(classes)}."
        )
    if model_classes is not None and classes != model_classes:
        raise ValueError(
            f"classification: num_classes={classes}, but the model has {model_classes}. Leave the"
            " argument out."
        )
    if not (checks.is_fraction(label_smoothing) and label_smoothing < 1):
        raise ValueError(
            "classification: label_smoothing must be in [0, 1), got"
            f" {checks.shown(label_smoothing)}."
        )
    loss, log_proba, head_fields = CrossEntropy(float(label_smoothing)), log_softmax, {}
    if isinstance(model, Heads):
        loss = HeadsCrossEntropy(model.over, model.repetition, loss.label_smoothing)
        log_proba = HeadsLogProba(model.members, model.repetition)
        settings: dict[str, Any] = {
            "label_smoothing": label_smoothing,
            "prunable": prunable,
            "fixed_state": fixed_state,
        }
        plain = classification(model.net, num_classes=int(classes), **settings)
        head_fields = {"heads": model.members, "plain": plain}
    return Task(
        init=init,
        apply=apply,
        loss=loss,
        log_proba=log_proba,
        prunable=prunable,
        num_classes=int(classes),
        name=name_of(model) if name is None else name,
        features=features_of(model),
        check=check_of(model),
        fixed_state=fixed_state,
        **head_fields,
    )


def functions(model: Model, caller: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The functions `Task.init` and `Task.apply` of a model.

    Raises:
      TypeError: if `model` is neither a Linen module, a factory nor a pair of functions; the
        message names `caller`.
    """
    if isinstance(model, linen.Module):
        return LinenInit(model), LinenApply(model)
    if isinstance(model, nnx.Module) or (
        inspect.isclass(model) and issubclass(model, linen.Module)
    ):
        fix = (
            "model=lambda rngs: MyModule(..., rngs=rngs)"
            if isinstance(model, nnx.Module)
            else f"model={model.__name__}(...)"
        )
        raise TypeError(f"{caller}: model must be {_KINDS}, got {model!r:.80}. Write {fix}.")
    if is_equinox_module(model):
        kind = type(model).__name__
        raise TypeError(
            f"{caller}: this {kind} has its weights already, and each ticket needs its own. Give"
            f" what makes one: model=lambda key: {kind}(..., key=key)."
        )
    if isinstance(model, tuple) and len(model) == 2 and all(callable(part) for part in model):
        return model
    if callable(model):
        factory = cast(Callable[..., Any], model)
        if is_equinox_factory(factory):
            return EquinoxInit(factory), EquinoxApply(factory)
        return NNXInit(factory), NNXApply(factory)
    raise TypeError(f"{caller}: model must be {_KINDS}, got {model!r:.80}.")


def check_of(model: Model) -> Callable[[PyTree, str, int], None] | None:
    """`Task.check` of a model: its `input_check`, or that of the network in its heads."""
    return getattr(getattr(model, "net", model), "input_check", None)


def log_softmax(logits: jax.Array) -> jax.Array:
    """Log-probabilities of the classes, float32: logits [..., C] -> [..., C]."""
    return jax.nn.log_softmax(logits.astype(jnp.float32))


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """Softmax cross-entropy of each example in float32, with label smoothing."""

    label_smoothing: float = 0.0

    def __call__(self, logits: jax.Array, y: jax.Array) -> jax.Array:
        """Maps logits [B, C] and integer labels [B] to [B]."""
        log_proba = log_softmax(logits)
        right = jnp.sum(jax.nn.one_hot(y, logits.shape[-1]) * log_proba, -1)
        return -(1 - self.label_smoothing) * right - self.label_smoothing * jnp.mean(log_proba, -1)


@dataclasses.dataclass(frozen=True)
class HeadsCrossEntropy:
    """Cross-entropy of each example over the heads of one network, their sum or mean, float32.

    Where training shows an example to a head several times, the mean over those.
    """

    over: Literal["sum", "mean"]
    repetition: int = 1
    label_smoothing: float = 0.0

    def __call__(self, outputs: PyTree, y: jax.Array) -> jax.Array:
        """Maps outputs of a `Heads` network and integer labels [B] to [B]."""
        logits = by_example(outputs, self.repetition)
        losses = CrossEntropy(self.label_smoothing)(
            logits, jnp.broadcast_to(y[:, None], logits.shape[:-1])
        ).mean(-1)
        return losses.sum(0) if self.over == "sum" else losses.mean(0)


@dataclasses.dataclass(frozen=True)
class HeadsLogProba:
    """Log-probabilities of each head, float32.

    One prediction for all of them (MC dropout in training) is every head's.
    """

    heads: int
    repetition: int = 1

    def __call__(self, outputs: PyTree) -> jax.Array:
        """Maps outputs of a `Heads` network to [H, B, C]."""
        log_proba = log_softmax(by_example(outputs, self.repetition))
        log_proba = (
            log_proba[:, :, 0]
            if log_proba.shape[2] == 1
            else jax.nn.logsumexp(log_proba, axis=2) - jnp.log(jnp.float32(log_proba.shape[2]))
        )
        return jnp.broadcast_to(log_proba, (self.heads, *log_proba.shape[1:]))


def name_of(model: Any) -> str:
    """The name of a model: its class, and fields that are not the default.

    First and required fields stand by position.
    """
    if not isinstance(model, linen.Module):
        part = model[1] if isinstance(model, tuple) else model
        while isinstance(part, functools.partial):
            part = part.func
        return getattr(part, "__name__", type(part).__name__)
    words = []
    fields = [field for field in dataclasses.fields(model) if field.name not in ("parent", "name")]
    for i, field in enumerate(fields):
        value = getattr(model, field.name)
        text = jnp.dtype(value).name if field.name == "dtype" else _word(value)
        if i == 0 or field.default is dataclasses.MISSING:
            words.append(text)
        elif value != field.default:
            words.append(f"{field.name}={text}")
    return f"{type(model).__name__}({', '.join(words)})"


def _word(value: Any) -> str:
    """The text of a field in a name, without an address, which is another in every process."""
    if isinstance(value, linen.Module):
        return name_of(value)
    if isinstance(value, functools.partial):
        return _word(value.func)
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    return re.sub(r" at 0x[0-9a-fA-F]+", "", str(value))
