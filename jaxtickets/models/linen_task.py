"""`Task.init` and `Task.apply` of a Linen module."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import linen

from jaxtickets.masks.packing import COLLECTION
from jaxtickets.models.block_products import packed_layers
from jaxtickets.models.modes import (
    in_mode,
    linen_mode,
    moves,
    statistics,
)
from jaxtickets.models.module_apply import ModuleApply
from jaxtickets.task import PyTree


@functools.partial(jax.jit, static_argnums=0)
def _linen_init(model, key, x):
    variables = dict(in_mode(model, False).init(key, x, **linen_mode(model, False)))
    state = {
        name: variables[name]
        for name in variables
        if name != "params" and not _is_sown(model, variables, name, x)
    }
    return variables.get("params", {}), state


def _is_sown(model: linen.Module, variables: dict[str, Any], name: str, x: PyTree) -> bool:
    """Whether the module runs without a collection, which it then only sows into.

    One that it only sows into, or takes gradients of, is no state.
    """
    if name == "batch_stats":
        return False
    collections = {other: collection for other, collection in variables.items() if other != name}
    params, state = collections.pop("params", {}), collections
    try:
        for train in (True, False):
            key = jax.random.key(0) if train else None
            jax.eval_shape(
                lambda p, s, x, train=train, key=key: LinenApply(model)(p, s, x, train, key),
                params,
                state,
                x,
            )
    except Exception:  # it asks for what is not there
        return False
    return True


@dataclasses.dataclass(frozen=True)
class LinenInit:
    """`Task.init` of a Linen module; compiled, and the forward pass in it is never run."""

    model: linen.Module

    def __call__(self, key: jax.Array, x: PyTree) -> tuple[PyTree, PyTree]:
        """Makes `(params, model_state)` for inputs shaped like `x`."""
        return _linen_init(self.model, key, x)


@dataclasses.dataclass(frozen=True)
class LinenApply(ModuleApply):
    """`Task.apply` of a Linen module.

    Dropout draws from `key`, every other stream that the module asks for from another made of it.
    """

    model: linen.Module

    def run(
        self,
        params: PyTree,
        model_state: PyTree,
        x: PyTree,
        train: bool,
        key: jax.Array | None,
        more: dict[str, Any],
    ) -> Any:
        """Runs the module; in training the collections in `model_state` are updated.

        Layers with a table of blocks there run packed (`jaxtickets.masks.packing`).
        """
        variables, model = {"params": params, **model_state}, in_mode(self.model, train)
        mode = linen_mode(self.model, train) | more
        rngs = streams(key)
        changes = [name for name in model_state if name != COLLECTION]
        with packed_layers(COLLECTION in model_state):
            if not train or not changes:
                return model.apply(variables, x, rngs=rngs, **mode), model_state
            outputs, updated = model.apply(variables, x, rngs=rngs, mutable=changes, **mode)
        return outputs, {name: updated.get(name, part) for name, part in model_state.items()}

    def kind(self) -> type:
        """The module's class."""
        return type(self.model)

    def layers_off(self, params: PyTree, model_state: PyTree, x: PyTree, fixed: bool) -> str:
        """The statistics or dropout that training leaves off, in words."""
        off: list[str] = []

        def look(
            method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], context: Any
        ) -> Any:
            layer, path = context.module, "/".join(context.module.path)
            rate = (
                layer.rate
                if isinstance(layer, linen.Dropout)
                else getattr(layer, "dropout_rate", 0) or 0
            )
            if (
                not callable(rate)
                and context.method_name == "__call__"
                and hasattr(layer, "deterministic")
                and rate > 0
            ):
                off.append(f"{path} has a dropout of {rate:g}")
            return method(*args, **kwargs)

        with linen.intercept_methods(look):
            moves(self.in_training({}), model_state, params, x)
        running_statistics = [] if fixed else statistics(model_state, "batch_stats")
        return (
            f"{running_statistics[0]} is a running statistic"
            if running_statistics
            else off[0]
            if off
            else ""
        )


def streams(key: jax.Array | None) -> dict[str, jax.Array]:
    """Random streams of a Linen module: "dropout"; Flax draws all others from "params"."""
    return {} if key is None else {"dropout": key, "params": jax.random.fold_in(key, 1)}
