"""`Task.init` and `Task.apply` of an NNX factory."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxtickets.models.modes import (
    FIELDS,
    call_arguments,
    call_modes,
    statistics,
)
from jaxtickets.models.module_apply import ModuleApply
from jaxtickets.task import PyTree


def _nnx_split(model: nnx.Module) -> tuple[Any, ...]:
    return nnx.split(model, nnx.Param, nnx.RngState, ...)


@functools.lru_cache(maxsize=128)
def _nnx_structure(factory) -> tuple[Any, ...]:
    return _nnx_split(nnx.eval_shape(lambda: factory(nnx.Rngs(0))))


@functools.partial(jax.jit, static_argnums=0)
def _nnx_init(factory, key):
    _, params, _, state = _nnx_split(factory(nnx.Rngs(key)))
    return nnx.to_pure_dict(params), nnx.to_pure_dict(state)


@dataclasses.dataclass(frozen=True)
class NNXInit:
    """`Task.init` of an NNX factory."""

    factory: Callable[[nnx.Rngs], nnx.Module]

    def __call__(self, key: jax.Array, x: PyTree) -> tuple[PyTree, PyTree]:
        """Makes `(params, model_state)`: all `nnx.Param`, and the rest but the random state."""
        return _nnx_init(self.factory, key)


@dataclasses.dataclass(frozen=True)
class NNXApply(ModuleApply):
    """`Task.apply` of an NNX factory: merge, call, split.

    Random streams are made anew from `key` at every call.
    """

    factory: Callable[[nnx.Rngs], nnx.Module]

    def run(
        self,
        params: PyTree,
        model_state: PyTree,
        x: PyTree,
        train: bool,
        key: jax.Array | None,
        more: dict[str, Any],
    ) -> Any:
        """Runs the module; in training the other variables that it was made with are updated."""
        key = jax.random.key(0) if key is None else key
        model = self._model(params, model_state, key)
        if train:
            model.train()
        else:
            model.eval()
        _set_flags(model, train)
        mode = call_modes(type(model), train) | more
        if "rngs" in call_arguments(type(model)):
            mode["rngs"] = nnx.Rngs(jax.random.fold_in(key, 1)) if train else None
        outputs = model(x, **mode)  # pyright: ignore[reportCallIssue]
        return outputs, (
            _as_before(nnx.to_pure_dict(_nnx_split(model)[3]), model_state)
            if train
            else model_state
        )

    def _model(self, params: PyTree, model_state: PyTree, key: jax.Array) -> Any:
        # arrays of numpy would be written to in place
        params, model_state = jax.tree.map(jnp.asarray, (params, model_state))
        graph, *states = _nnx_structure(self.factory)
        random = _streams(nnx.to_pure_dict(states[1]), key)
        return nnx.merge(
            graph,
            *(
                _filled(state, values)
                for state, values in zip(states, (params, random, model_state), strict=True)
            ),
        )

    def kind(self) -> type:
        """The module's class."""
        return type(nnx.merge(*_nnx_structure(self.factory)))

    def layers_off(self, params: PyTree, model_state: PyTree, x: PyTree, fixed: bool) -> str:
        """The statistics or dropout that training leaves off, in words."""
        model = nnx.merge(*_nnx_structure(self.factory))
        state_structure = _nnx_structure(self.factory)[3]
        is_stat = lambda leaf: isinstance(leaf, nnx.BatchStat)  # noqa: E731
        running_statistics = (
            []
            if fixed
            else statistics(
                model_state, any(map(is_stat, jax.tree.leaves(state_structure, is_leaf=is_stat)))
            )
        )
        if running_statistics:
            return f"{running_statistics[0]} is a running statistic"
        for path, layer in nnx.iter_modules(model):
            rate = (
                getattr(layer, "rate", 0)
                if isinstance(layer, nnx.Dropout)
                else getattr(layer, "dropout_rate", 0)
            )
            if isinstance(rate, float) and hasattr(layer, "deterministic") and rate > 0:
                return f"{'/'.join(map(str, path))} has a dropout of {rate:g}"
        return ""


def _set_flags(model: nnx.Module, train: bool) -> None:
    """Set the flags by which the network's modules know whether they train."""
    for _, module in nnx.iter_modules(model):
        for name, value in list(vars(module).items()):
            if isinstance(value, bool) and name in FIELDS:
                setattr(module, name, FIELDS[name] is train)


def _filled(state: Any, pure: PyTree) -> Any:
    """A state with the arrays of a nested dictionary of the same structure."""
    leaves, tree = jax.tree.leaves(pure), jax.tree.structure(state)
    places = jax.tree.leaves(nnx.to_pure_dict(jax.tree.unflatten(tree, range(tree.num_leaves))))
    by_place = dict(zip(places, leaves, strict=True))
    return jax.tree.unflatten(tree, [by_place[i] for i in range(tree.num_leaves)])


def _as_before(now: PyTree, before: PyTree) -> PyTree:
    """The entries of a nested dictionary that were there before.

    What a module sows, or adds as it runs, is no state.
    """
    return (
        {name: _as_before(now[name], before[name]) for name in before}
        if isinstance(before, dict)
        else now
    )


def _streams(abstract: PyTree, key: jax.Array) -> PyTree:
    """A random state like `abstract`: a key folded from `key` for each stream, counters at 0."""
    leaves, tree = jax.tree.flatten(abstract)
    fresh = [
        (
            jax.random.fold_in(key, i)
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            else jnp.zeros(leaf.shape, leaf.dtype)
        )
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(tree, fresh)
