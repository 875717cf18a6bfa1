"""Tells modules whether they train: names of that flag, and flags that no name gives away."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import linen as nn

from jaxtickets.messages.pytrees import leaf_paths
from jaxtickets.models.heads import Heads
from jaxtickets.tracing.jaxprs import subjaxprs

# What modules call the flag, and what it is while they train. As a field it is called so, too ...
FIELDS: Mapping[str, bool] = {
    **dict.fromkeys(
        ("train", "training", "is_training", "is_train", "train_mode", "training_mode"), True
    ),
    **dict.fromkeys(
        ("deterministic", "is_deterministic", "inference", "is_inference", "inference_mode"), False
    ),
    **dict.fromkeys(
        (
            "eval",
            "is_eval",
            "evaluation",
            "eval_mode",
            "is_evaluating",
            "testing",
            "is_test",
            "is_testing",
        ),
        False,
    ),
    **dict.fromkeys(("use_running_average", "use_running_averages", "use_running_stats"), False),
}
# ... while these, as fields, say how a network is built.
MODES: Mapping[str, bool] = {
    **FIELDS,
    **dict.fromkeys(
        (
            "enable_dropout",
            "use_dropout",
            "apply_dropout",
            "update_stats",
            "update_batch_stats",
            "stochastic",
        ),
        True,
    ),
    **dict.fromkeys(("evaluate", "evaluating", "test", "disable_dropout"), False),
}


# Of state in general it is not known whether it is meant to stay; what is called so is not.
_STATISTIC = re.compile(
    r"(^|[/_])(means?|vars?|variances?|std|avg|averages?|ema|moving|running|stats?|statistics)($|[/_\d])",
    re.IGNORECASE,
)


def call_modes(kind: type, train: bool) -> dict[str, bool]:
    """The arguments that tell a module of that class whether it trains, for its `__call__`."""
    return {name: MODES[name] is train for name in _arguments(kind)}


@functools.lru_cache(maxsize=128)
def _arguments(kind: type) -> tuple[str, ...]:
    return tuple(
        name for name, default in call_arguments(kind).items() if name in MODES and is_flag(default)
    )


def call_arguments(kind: type) -> dict[str, Any]:
    """The named arguments of a module's `__call__` after the first (x), with their defaults."""
    parameters = list(inspect.signature(kind.__call__).parameters.values())[2:]
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return {p.name: p.default for p in named}


def is_flag(value: Any) -> bool:
    """Whether a default is one that a flag may have: a bool, None, or none at all."""
    return isinstance(value, bool) or value is None or value is inspect.Parameter.empty


def linen_mode(model: nn.Module, train: bool) -> dict[str, Any]:
    """The arguments that tell a Linen module whether it trains.

    None where its class takes none, or its fields say it already.

    >>> linen_mode(nn.Dropout(0.5), train=True)
    {'deterministic': False}
    """
    fields = _fields(model)
    return {
        name: value
        for name, value in call_modes(type(model), train).items()
        if fields.get(name) is None
    }


def in_mode(model: nn.Module, train: bool) -> nn.Module:
    """The module with those fields set that tell it whether it trains, `Net(training=False)`.

    Of several heads, their network's.

    A field that is None is left alone where `__call__` is told.
    """
    has_argument = bool(call_modes(type(model), train))
    changes: dict[str, Any] = {
        name: FIELDS[name] is train
        for name, value in _fields(model).items()
        if value is not None or not has_argument
    }
    if isinstance(model, Heads):
        changes["net"] = in_mode(model.net, train)
    return (
        model.clone(**changes)
        if any(getattr(model, name) != value for name, value in changes.items())
        else model
    )


def _fields(model: nn.Module) -> dict[str, bool | None]:
    names = [field.name for field in dataclasses.fields(model) if field.name in FIELDS]  # pyright: ignore[reportArgumentType]
    return {
        name: getattr(model, name)
        for name in names
        if getattr(model, name) is None or isinstance(getattr(model, name), bool)
    }


def unknown_flags(kind: type) -> list[str]:
    """Switches among the arguments of a module's `__call__` that no name here explains.

    Their defaults are True or False.
    """
    return [
        name
        for name, default in call_arguments(kind).items()
        if isinstance(default, bool) and name not in MODES
    ]


def moves(run: Callable[..., tuple[Any, Any]], model_state: Any, params: Any, x: Any) -> int | None:
    """How many state leaves change and random draws happen when a network runs.

    `run(model_state, params, x, key)` gives `(outputs, model_state)`; it is traced, not computed.
    None if it cannot be.
    """
    key = jax.eval_shape(lambda: jax.random.key(0, impl="threefry2x32"))
    try:
        program = jax.make_jaxpr(lambda *given: jax.tree.leaves(run(*given)[1]))(
            model_state, params, x, key
        )
    except Exception:  # frameworks have their own kinds
        return None
    changed = sum(
        a is not b for a, b in zip(program.jaxpr.invars, program.jaxpr.outvars, strict=False)
    )
    return changed + _draws(program.jaxpr)


def statistics(model_state: Any, surely: bool | str) -> list[str]:
    """The leaves of a state whose names are those of statistics.

    All of them where `surely`, or in the collection of that name.
    """
    paths = leaf_paths(model_state)
    return [
        p
        for p in paths
        if surely is True or (surely and p.split("/")[0] == surely) or _STATISTIC.search(p)
    ]


def _draws(jaxpr: Any) -> int:
    """The number of random draws in a program."""
    inner = (_draws(sub) for eqn in jaxpr.eqns for sub in subjaxprs(eqn))
    return sum(eqn.primitive.name in ("random_bits", "threefry2x32") for eqn in jaxpr.eqns) + sum(
        inner
    )
