"""`classification`: a task out of a Linen module, an NNX factory or a pair of bare functions.

The functions of a task are small frozen dataclasses, so tasks made of equal models are equal and share compiled code.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
from flax import linen, nnx

from jaxtickets.masks import KERNELS, Rules
from jaxtickets.models.features import features_of
from jaxtickets.models.heads import Heads, by_example, linen_mode
from jaxtickets.task import PyTree, Task

Model = linen.Module | Callable[[nnx.Rngs], nnx.Module] | tuple[Callable[..., Any], Callable[..., Any]]


def classification(
    model: Model,
    *,
    num_classes: int | None = None,
    label_smoothing: float = 0.0,
    prunable: Rules = KERNELS,
    name: str | None = None,
) -> Task:
    """The task of telling C classes apart with `model`, trained by softmax cross-entropy.

    The loss of one example with label y and logits z is `-sum_c q_c log softmax(z)_c`, in float32, where
    `q = (1 - s) onehot(y) + s / C` and s is `label_smoothing`.

    Args:
      model: one of
        - a Linen module called as `model(x, train)`, `model(x, deterministic)` or `model(x)`; dropout draws from the
          collection "dropout"; or one of several heads (`TreeNet`, `BatchEnsemble`, `MIMO`, `MCDropout`);
        - a factory `rngs -> nnx.Module`, called as `model(x)` in train or eval mode;
        - a pair `(init, apply)` of functions with the signatures of `Task`.
      num_classes: C; by default `model.num_classes`.
      label_smoothing: s, in [0, 1).
      prunable: path rules for what a mask may cover.
      name: what a run folder calls it; by default made of the model's fields.

    Returns:
      A `Task`. Two calls with equal Linen models (or the same factory or functions) return equal tasks.

    Raises:
      ValueError: if C is not known or differs from the model's, or `label_smoothing` is outside [0, 1).
      TypeError: if `model` is none of the three.

    >>> from jaxtickets.models import WideResNet
    >>> classification(WideResNet(28, 10)).name
    'WideResNet(28, 10)'
    >>> classification(WideResNet(28, 10)) == classification(WideResNet(28, 10))
    True
    """
    init, apply = functions(model, "classification")
    known = getattr(model, "num_classes", None)
    classes = known if num_classes is None else num_classes
    if classes is None:
        raise ValueError("classification: num_classes is needed, because this model has no attribute num_classes; got None.")
    if known is not None and classes != known:
        raise ValueError(f"classification: num_classes={classes}, but the model has {known}. Leave the argument out.")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"classification: label_smoothing must be in [0, 1), got {label_smoothing}.")
    loss, log_proba, several = CrossEntropy(float(label_smoothing)), log_softmax, {}
    if isinstance(model, Heads):
        loss = HeadsCrossEntropy(model.over, model.repetition, loss.label_smoothing)
        log_proba = HeadsLogProba(model.members, model.repetition)
        plain = classification(model.net, num_classes=classes, label_smoothing=label_smoothing, prunable=prunable)
        several = {"heads": model.members, "plain": plain}
    return Task(
        init=init,
        apply=apply,
        loss=loss,
        log_proba=log_proba,
        prunable=prunable,
        num_classes=int(classes),
        name=name_of(model) if name is None else name,
        features=features_of(model),
        **several,
    )


def functions(model: Model, caller: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`Task.init` and `Task.apply` of a model.

    Raises:
      TypeError: if `model` is neither a Linen module, an NNX factory nor a pair of functions; `caller` is told.
    """
    if isinstance(model, linen.Module):
        return LinenInit(model), LinenApply(model)
    if isinstance(model, nnx.Module) or (inspect.isclass(model) and issubclass(model, linen.Module)):
        fix = "model=lambda rngs: MyModule(..., rngs=rngs)" if isinstance(model, nnx.Module) else f"model={model.__name__}(...)"
        raise TypeError(f"{caller}: model must be a Linen module, an NNX factory or (init, apply), got {model!r:.80}. Write {fix}.")
    if isinstance(model, tuple) and len(model) == 2 and all(callable(part) for part in model):
        return model
    if callable(model):
        factory = cast(Callable[[nnx.Rngs], nnx.Module], model)
        return NNXInit(factory), NNXApply(factory)
    raise TypeError(f"{caller}: model must be a Linen module, an NNX factory or (init, apply), got {model!r:.80}.")


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
    """Cross-entropy of each example over the heads of one network: their sum or their mean, float32.

    Where training shows an example to a head several times, the mean over those.
    """

    over: Literal["sum", "mean"]
    repetition: int = 1
    label_smoothing: float = 0.0

    def __call__(self, outputs: PyTree, y: jax.Array) -> jax.Array:
        """Maps outputs of a `Heads` network and integer labels [B] to [B]."""
        logits = by_example(outputs, self.repetition)
        each = CrossEntropy(self.label_smoothing)(logits, jnp.broadcast_to(y[:, None], logits.shape[:-1])).mean(-1)
        return each.sum(0) if self.over == "sum" else each.mean(0)


@dataclasses.dataclass(frozen=True)
class HeadsLogProba:
    """Log-probabilities of each head, float32. One prediction for all of them (MC dropout in training) is every head's."""

    heads: int
    repetition: int = 1

    def __call__(self, outputs: PyTree) -> jax.Array:
        """Maps outputs of a `Heads` network to [H, B, C]."""
        each = log_softmax(by_example(outputs, self.repetition))
        each = each[:, :, 0] if each.shape[2] == 1 else jax.nn.logsumexp(each, axis=2) - jnp.log(jnp.float32(each.shape[2]))
        return jnp.broadcast_to(each, (self.heads, *each.shape[1:]))


@functools.partial(jax.jit, static_argnums=0)
def _linen_init(model, key, x):
    return model.init(key, x, **linen_mode(model, False))


@dataclasses.dataclass(frozen=True)
class LinenInit:
    """`Task.init` of a Linen module; compiled, and the forward pass in it is never run."""

    model: linen.Module

    def __call__(self, key: jax.Array, x: PyTree) -> tuple[PyTree, PyTree]:
        """Makes `(params, model_state)` for inputs shaped like `x`."""
        variables = dict(_linen_init(self.model, key, x))
        return variables.pop("params"), variables


@dataclasses.dataclass(frozen=True)
class LinenApply:
    """`Task.apply` of a Linen module."""

    model: linen.Module

    def __call__(self, params: PyTree, model_state: PyTree, x: PyTree, train: bool, key: jax.Array | None = None) -> tuple[PyTree, PyTree]:
        """Runs the module; in training the collections in `model_state` are updated."""
        variables = {"params": params, **model_state}
        rngs = {} if key is None else {"dropout": key}
        mode = linen_mode(self.model, train)
        if not train or not model_state:
            return self.model.apply(variables, x, rngs=rngs, **mode), model_state
        outputs, updated = self.model.apply(variables, x, rngs=rngs, mutable=list(model_state), **mode)
        return outputs, dict(updated)


def _nnx_split(model: nnx.Module) -> tuple[Any, ...]:
    return nnx.split(model, nnx.Param, nnx.RngState, ...)


@functools.lru_cache(maxsize=128)
def _nnx_structure(factory) -> tuple[Any, ...]:
    return _nnx_split(nnx.eval_shape(lambda: factory(nnx.Rngs(0))))


@functools.partial(jax.jit, static_argnums=0)
def _nnx_init(factory, key):
    _, params, _, rest = _nnx_split(factory(nnx.Rngs(key)))
    return nnx.to_pure_dict(params), nnx.to_pure_dict(rest)


@dataclasses.dataclass(frozen=True)
class NNXInit:
    """`Task.init` of an NNX factory."""

    factory: Callable[[nnx.Rngs], nnx.Module]

    def __call__(self, key: jax.Array, x: PyTree) -> tuple[PyTree, PyTree]:
        """Makes `(params, model_state)`: all `nnx.Param`, and every other variable but the random state."""
        return _nnx_init(self.factory, key)


@dataclasses.dataclass(frozen=True)
class NNXApply:
    """`Task.apply` of an NNX factory: merge, call, split. Random streams are made anew from `key` at every call."""

    factory: Callable[[nnx.Rngs], nnx.Module]

    def __call__(self, params: PyTree, model_state: PyTree, x: PyTree, train: bool, key: jax.Array | None = None) -> tuple[PyTree, PyTree]:
        """Runs the module in train or eval mode; in training the other variables are updated."""
        graph, *states = _nnx_structure(self.factory)
        states = [jax.tree.map(lambda leaf: leaf, state) for state in states]
        nnx.replace_by_pure_dict(states[0], params)
        nnx.replace_by_pure_dict(states[1], _streams(nnx.to_pure_dict(states[1]), jax.random.key(0) if key is None else key))
        nnx.replace_by_pure_dict(states[2], model_state)
        model = nnx.merge(graph, *states)
        if train:
            model.train()
        else:
            model.eval()
        outputs = model(x)  # pyright: ignore[reportCallIssue]
        return outputs, nnx.to_pure_dict(_nnx_split(model)[3]) if train else model_state


def _streams(abstract: PyTree, key: jax.Array) -> PyTree:
    """Random state shaped like `abstract`: keys folded from `key`, one per stream, and counters at 0."""
    leaves, tree = jax.tree.flatten(abstract)
    fresh = [
        jax.random.fold_in(key, i) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else jnp.zeros(leaf.shape, leaf.dtype)
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(tree, fresh)


def name_of(model: Any) -> str:
    """Class and fields: the first and the required ones by position, others where they differ from their default."""
    if not isinstance(model, linen.Module):
        part = model[1] if isinstance(model, tuple) else model
        return getattr(part, "__name__", type(part).__name__)
    words = []
    fields = [field for field in dataclasses.fields(model) if field.name not in ("parent", "name")]
    for i, field in enumerate(fields):
        value = getattr(model, field.name)
        text = jnp.dtype(value).name if field.name == "dtype" else name_of(value) if isinstance(value, linen.Module) else str(value)
        if i == 0 or field.default is dataclasses.MISSING:
            words.append(text)
        elif value != field.default:
            words.append(f"{field.name}={text}")
    return f"{type(model).__name__}({', '.join(words)})"
