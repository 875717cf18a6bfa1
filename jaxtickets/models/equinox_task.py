"""`Task.init` and `Task.apply` of an Equinox factory, `key -> module`.

Equinox is optional: it is looked up among the modules that somebody has imported, never imported.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxtickets.messages.pytrees import leaf_paths
from jaxtickets.models.modes import (
    call_arguments,
    call_modes,
    statistics,
)
from jaxtickets.models.module_apply import ModuleApply
from jaxtickets.task import PyTree


class _Structure(NamedTuple):
    """The parts that all modules of a factory have in common: everything but the numbers."""

    kind: type
    params: PyTree  # a module, with shapes for its floating-point arrays and None for all else
    state: PyTree  # an `eqx.nn.State` of shapes
    indices: dict[str, Any]  # paths to the module's `StateIndex`es, in the order of `state`
    constants: PyTree  # as `params`: shapes of the arrays that are not trained, such as integers
    static: PyTree  # the module without its arrays


def _equinox() -> Any:
    return sys.modules.get("equinox")


def is_equinox_module(model: Any) -> bool:
    """Whether a model is an Equinox module, which has its weights already."""
    return _equinox() is not None and isinstance(model, _equinox().Module)


def is_equinox_factory(model: Any) -> bool:
    """Whether calling a model with a key makes an Equinox module.

    It is traced to find out.
    """
    if _equinox() is None or not callable(model):
        return False
    if inspect.isclass(model):
        return issubclass(model, _equinox().Module)
    try:
        return _structure(model) is not None
    except Exception:  # of NNX, that a key is no `Rngs`
        return _first_argument(model) == "key"


def _first_argument(factory: Callable[..., Any]) -> str | None:
    """The name of the first argument without a default; None where it is not told."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return None
    return next((p.name for p in parameters if p.default is p.empty), None)


def _make(factory: Callable[..., Any], key: jax.Array) -> tuple[Any, Any]:
    """The module without its initial state, and that state as an `eqx.nn.State`."""
    by_name = {"key": key} if _first_argument(factory) == "key" else None
    module = factory(**by_name) if by_name else factory(key)
    if (
        isinstance(module, tuple)
        and len(module) == 2
        and isinstance(module[1], _equinox().nn.State)
    ):
        return module
    return _equinox().nn.make_with_state(lambda: module)()


def _split(module: Any) -> tuple[PyTree, PyTree, PyTree]:
    """A module's floating-point arrays, its other arrays, and the rest of it."""
    params, others = _equinox().partition(module, _equinox().is_inexact_array)
    return params, *_equinox().partition(others, _equinox().is_array)


def _indices(module: Any) -> dict[str, Any]:
    """The places of a module's state by their paths; one that is shared has its first path."""

    def is_index(node: Any) -> bool:
        return isinstance(node, _equinox().nn.StateIndex)

    index_by_marker: dict[Any, tuple[str, Any]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(module, is_leaf=is_index):
        if is_index(leaf):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            index_by_marker.setdefault(leaf.marker, (name, leaf))
    return dict(index_by_marker.values())


@functools.lru_cache(maxsize=128)
def _structure(factory: Callable[..., Any]) -> _Structure | None:
    """The structure of a factory's modules; None where it makes something else."""
    static: list[Any] = []

    def arrays(key: jax.Array) -> Any:
        module_and_state = _make(factory, key)
        if not isinstance(module_and_state[0], _equinox().Module):
            return None
        params, constants, skeleton = _split(module_and_state[0])
        static.extend((type(module_and_state[0]), _indices(module_and_state[0]), skeleton))
        return params, module_and_state[1], constants

    shapes = jax.eval_shape(arrays, jax.random.key(0))
    if shapes is None:
        return None
    params, state, constants = shapes
    kind, indices, skeleton = static
    return _Structure(kind, params, state, indices, constants, skeleton)


@functools.partial(jax.jit, static_argnums=0)
def _leaves(factory, key):
    module, state = _make(factory, key)
    params, constants, _ = _split(module)
    # leaves only: a function that a module makes anew each time would tell equal trees apart
    return tuple(map(jax.tree.leaves, (params, state, constants)))


def _like(tree: PyTree, leaves: Any) -> PyTree:
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def _to_dict(structure: _Structure, state: Any, constants: PyTree) -> dict[str, PyTree]:
    """`model_state`: the state's values and the constants, by their paths in the module."""
    values = {name: state.get(index) for name, index in structure.indices.items()}
    return values | dict(
        zip(leaf_paths(structure.constants), jax.tree.leaves(constants), strict=True)
    )


@dataclasses.dataclass(frozen=True)
class EquinoxInit:
    """`Task.init` of an Equinox factory; compiled.

    >>> import equinox as eqx
    >>> init = EquinoxInit(lambda key: eqx.nn.Linear(3, 2, key=key))
    >>> params, model_state = init(jax.random.key(0), None)
    >>> params.weight.shape, params.bias.shape, model_state
    ((2, 3), (2,), {})
    """

    factory: Callable[..., Any]

    def __call__(self, key: jax.Array, x: PyTree) -> tuple[PyTree, PyTree]:
        """Makes `(params, model_state)`, a module of arrays and a dict.

        The module has its floating-point arrays alone; the dict the values of its `eqx.nn.State`
        and its other arrays.
        """
        structure = _of(self.factory)
        params, state, constants = _leaves(self.factory, key)
        return _like(structure.params, params), _to_dict(
            structure, _like(structure.state, state), _like(structure.constants, constants)
        )


@dataclasses.dataclass(frozen=True)
class EquinoxApply(ModuleApply):
    """`Task.apply` of an Equinox factory: the module is called under `jax.vmap`, an example each.

    Its batch norms may give the axis any name; the statistics are of the whole batch.
    """

    factory: Callable[..., Any]

    def run(
        self,
        params: PyTree,
        model_state: PyTree,
        x: PyTree,
        train: bool,
        key: jax.Array | None,
        more: dict[str, Any],
    ) -> tuple[PyTree, PyTree]:
        """Runs the module with `inference` set to `not train`; in training its state is updated."""
        eqx, structure = _equinox(), _of(self.factory)
        constants = _like(
            structure.constants, [model_state[name] for name in leaf_paths(structure.constants)]
        )
        state = _like(
            structure.state, jax.tree.leaves([model_state[name] for name in structure.indices])
        )
        module = eqx.nn.inference_mode(
            eqx.combine(
                _like(structure.params, jax.tree.leaves(params)), constants, structure.static
            ),
            not train,
        )
        arguments = call_arguments(structure.kind)
        mode = call_modes(structure.kind, train) | more
        keys = None
        if "key" in arguments and train:
            examples = len(jax.tree.leaves(x)[0])
            keys = jax.random.split(jax.random.key(0) if key is None else key, examples)
        stateful = takes_state(arguments, structure)

        def one(x: PyTree, key: jax.Array | None) -> Any:
            extra = {"key": key} if "key" in arguments else {}
            extra |= {"state": state} if stateful else {}
            outputs = module(x, **extra, **mode)
            return outputs if stateful else (outputs, state)

        outputs, state = jax.vmap(one, out_axes=(0, None), axis_name=_axis_name(module))(x, keys)
        return outputs, _to_dict(structure, state, constants) if train else model_state

    def kind(self) -> type:
        """The module's class."""
        return _of(self.factory).kind

    def layers_off(self, params: PyTree, model_state: PyTree, x: PyTree, fixed: bool) -> str:
        """The statistics or dropout that training leaves off, in words."""
        structure = _of(self.factory)
        state = {name: model_state[name] for name in structure.indices}
        running_statistics = (
            [] if fixed else statistics(state, bool(_nodes(structure.static, "BatchNorm")))
        )
        rates = [layer.p for layer in _nodes(structure.static, "Dropout")]
        dropout = [rate for rate in rates if isinstance(rate, float) and rate > 0]
        if running_statistics:
            return f"{running_statistics[0]} is a running statistic"
        return f"a layer has a dropout of {dropout[0]:g}" if dropout else ""


def takes_state(arguments: dict[str, Any], of: _Structure) -> bool:
    """Whether the module is called with its state, and gives `(outputs, state)`.

    Raises:
      TypeError: it has state, and no argument `state` to be called with.
    """
    if "state" in arguments:
        return bool(of.indices) or arguments["state"] is inspect.Parameter.empty
    if of.indices:
        raise TypeError(
            f"{of.kind.__name__} has layers with state ({', '.join(of.indices)}), and its __call__"
            " takes none. Write def __call__(self, x, state) and return (outputs, state)."
        )
    return False


def _axis_name(module: Any) -> Any:
    """The name that the module's batch norms have for the batch axis.

    Raises:
      TypeError: they call it by different names.
    """
    names = {layer.axis_name for layer in _nodes(module, "BatchNorm")}
    if len(names) > 1 or any(isinstance(name, tuple | list) for name in names):
        raise TypeError(
            f"{type(module).__name__}: its batch norms call the batch"
            f" {', '.join(map(repr, names))}; one name can be had. Give all of them"
            " axis_name='batch'."
        )
    return next(iter(names), None)


def _nodes(module: Any, kind: str) -> list[Any]:
    """Layers of a module that are of a class of `eqx.nn`."""
    layer_class = getattr(_equinox().nn, kind)
    leaves = jax.tree.leaves(module, is_leaf=lambda node: isinstance(node, layer_class))
    return [leaf for leaf in leaves if isinstance(leaf, layer_class)]


def _of(factory: Callable[..., Any]) -> _Structure:
    structure = _structure(factory)
    if structure is None:
        raise TypeError(f"{factory!r:.80} makes no Equinox module.")
    return structure
