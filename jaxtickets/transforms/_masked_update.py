"""The one place where an optimizer's step is made to respect a mask."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtickets import masks
from jaxtickets.errors import MaskError
from jaxtickets.messages import checks
from jaxtickets.messages.quoting import shown

check = checks.Checks(MaskError, arrays=True)

PyTree = Any


def optimizer(inner: Any) -> optax.GradientTransformationExtraArgs:
    """`inner`, made to take extra arguments, if it is an optax optimizer."""
    if isinstance(inner, optax.MultiSteps):
        inner = inner.gradient_transformation()
    if isinstance(inner, type) or not (
        callable(getattr(inner, "init", None)) and callable(getattr(inner, "update", None))
    ):
        hint = (
            f" Call it first: {inner.__name__}(1e-3)."
            if callable(inner) and hasattr(inner, "__name__")
            else ""
        )
        raise MaskError(
            "inner is an optax optimizer, such as optax.adam(1e-3); got"
            f" {checks.shown(inner)}.{hint}"
        )
    return optax.with_extra_args_support(inner)


class MaskedStep(NamedTuple):
    """What `masked_step` gives: the updates, the mask from now on, and the optimizer's state."""

    updates: PyTree
    mask: PyTree
    moments: PyTree


def masked_step(
    inner: optax.GradientTransformationExtraArgs,
    grads: PyTree,
    moments: PyTree,
    params: PyTree,
    mask: PyTree,
    next_mask: Callable[[Callable[[PyTree], PyTree], PyTree], tuple[PyTree, PyTree]] | None = None,
    no_update: jax.Array | None = None,
    **extra: Any,
) -> MaskedStep:
    """One step of an optimizer on a sparse network: the weights, then the mask, then the moments.

    Args:
      inner: the optimizer. It never sees a pruned weight's gradient.
      grads: the gradient of all weights.
      moments: the optimizer's state.
      params: the weights, 0 where pruned.
      mask: the present mask.
      next_mask: takes a function that computes the weights after the update, and its argument;
        gives the mask from now on, and which of its weights live on (the others begin at 0, with
        moments 0). None leaves the mask as it is.
      no_update: a traced bool: leave weights and moments as they are in this step.
      **extra: what the optimizer's update takes besides.
    """

    def update(given: PyTree) -> tuple[PyTree, PyTree]:
        grads, moments, params, mask, no_update = given
        new = inner.update(masks.apply(mask, grads), moments, params, **extra)
        if no_update is None:
            return new
        still = (jax.tree.map(jnp.zeros_like, new[0]), moments)
        return jax.tree.map(lambda old, new: jnp.where(no_update, old, new), still, new)

    # The mask is chosen by the weights as they are after this step. The rare branch that looks at
    # them computes them again: handed over, they would be written out at every step.
    def moved(given: PyTree) -> PyTree:
        _, _, params, mask, _ = given
        return optax.apply_updates(params, mask_updates(update(given)[0], params, mask))

    given = (grads, moments, params, mask, no_update)
    updates, moved_moments = update(given)
    new_mask, survivors = (mask, mask) if next_mask is None else next_mask(moved, given)
    # The moments come last: a weight that this step dropped keeps none, one that it grew has none.
    moments = mask_moments(inner, moved_moments, params, survivors)
    return MaskedStep(mask_updates(updates, params, survivors), new_mask, moments)


def mask_updates(updates: PyTree, params: PyTree, survivors: PyTree) -> PyTree:
    """Updates that put every weight outside `survivors` at exactly 0, whatever it was before."""

    def mask_leaf(m: jax.Array, u: jax.Array, p: jax.Array) -> jax.Array:
        if m.ndim == 0:
            return u
        # -p rounded to a narrower update's dtype would not take all of p away
        dtype = jnp.promote_types(u.dtype, p.dtype)
        return jnp.where(m, u.astype(dtype), -p.astype(dtype))

    return jax.tree.map(mask_leaf, survivors, updates, params)


def mask_moments(
    inner: optax.GradientTransformation, state: PyTree, params: PyTree, survivors: PyTree
) -> PyTree:
    """The optimizer's state with every per-weight moment outside `survivors` exactly 0."""
    flags = jax.tree.leaves(survivors)

    def mask_leaf(leaf: int, moment: jax.Array) -> jax.Array:
        m = flags[leaf]
        return moment if m.ndim == 0 else jnp.where(m, moment, jnp.zeros((), moment.dtype))

    return map_moments(mask_leaf, inner, state, params)


def map_moments(
    change: Callable[[int, jax.Array], jax.Array],
    inner: optax.GradientTransformation,
    state: PyTree,
    params: PyTree,
) -> PyTree:
    """The optimizer's state with every per-weight moment changed.

    optax itself says which parts of a state are trees like the params, so no optimizer is known by
    name. Factored moments (Adafactor's and SM3's rows and columns) belong to no single weight and
    are left alone, and so are the holes that `optax.partition` and `optax.masked` leave. Where it
    cannot say (`optax.flatten`, which makes one vector of all params), a moment is known by its
    path and shape, or by being that vector's.

    Args:
      change: `(leaf, moment)`, the number of a leaf of the params and a moment of its shape, to
        what takes its place.
      inner: the optimizer.
      state: its state.
      params: the weights.
    """
    weights = {
        tuple(path): (leaf, jnp.shape(p))
        for leaf, (path, p) in enumerate(jax.tree_util.tree_leaves_with_path(params))
    }

    def change_leaf(path: tuple[Any, ...], moment: Any) -> Any:
        # SM3 has a list in a weight's place, so that a moment's path may go on where the weight's
        # ends.
        beginnings = (path[:i] for i in range(len(path), -1, -1))
        return _changed(change, weights, beginnings, moment)

    def change_tree(moments: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(change_leaf, moments)

    try:
        return optax.tree.map_params(inner, change_tree, state, is_leaf=lambda _: True)
    except (ValueError, TypeError):
        return _map_by_shape(change, state, weights)


def _changed(
    change: Callable[[int, jax.Array], jax.Array],
    weights: dict[Any, tuple[int, tuple[int, ...]]],
    paths: Iterable[tuple[Any, ...]],
    moment: Any,
) -> Any:
    """A moment changed, if one of its paths is a weight's and it has that weight's shape."""
    leaf, shape = next((weights[path] for path in paths if path in weights), (None, None))
    if leaf is None or getattr(moment, "shape", None) != shape:
        return moment
    return change(leaf, moment)


def _map_by_shape(
    change: Callable[[int, jax.Array], jax.Array],
    state: PyTree,
    weights: dict[Any, tuple[int, tuple[int, ...]]],
) -> PyTree:
    shapes = [shape for _, shape in weights.values()]
    ends = np.cumsum([math.prod(shape) for shape in shapes])

    def change_leaf(path: tuple[Any, ...], moment: Any) -> Any:
        if len(shapes) > 1 and getattr(moment, "shape", None) == (ends[-1],):
            pieces = zip(jnp.split(moment, ends[:-1]), shapes, strict=True)
            changed = [change(i, one.reshape(shape)) for i, (one, shape) in enumerate(pieces)]
            return jnp.concatenate([one.reshape(-1) for one in changed])
        endings = (path[i:] for i in range(len(path) + 1))
        return _changed(change, weights, endings, moment)

    return jax.tree_util.tree_map_with_path(change_leaf, state)


def is_placeholder(params: PyTree) -> bool:
    """Whether `init` is called by `optax.tree.map_params`, on a tree without leaves."""
    return not jax.tree.leaves(params)


def check_update(name: str, grads: PyTree, state: Any, params: PyTree | None, kind: type) -> PyTree:
    """`params`, if they, the gradients and the state belong together; optax would allow None."""
    if params is None:
        raise ValueError(f"{name} needs the params: call tx.update(grads, state, params).")
    if not isinstance(state, kind):
        raise MaskError(
            f"{name}: the state is not what its init gave; got {type(state).__name__} in place of"
            f" {kind.__name__}."
        )
    paths = masks.leaf_paths(params)
    for path, leaf in zip(paths, jax.tree.leaves(params), strict=True):
        if not hasattr(leaf, "shape") and callable(leaf):
            raise MaskError(
                f"{name}: params are arrays; {path!r} is {shown(leaf)}. Of an Equinox module take"
                " eqx.filter(model, eqx.is_array)."
            )
    check.same_shapes(f"{name}: gradients", grads, params, paths)
    return params


def stand_in(params: PyTree) -> PyTree:
    """The mask of a tree without leaves: that tree, or what `optax.tree.map_params` takes for one.

    Its specs for params would be wrong for a mask, whose dense markers are 0-d.
    """
    real = (
        params is None
        or isinstance(params, Mapping | list | tuple)
        or hasattr(params, "__dataclass_fields__")
    )
    return params if real else jnp.zeros((), bool)


def own_copy(tree: PyTree) -> PyTree:
    """Arrays that belong to a state alone: to donate it must not delete what the caller holds."""

    def copy(a: Any) -> jax.Array:
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(
                jnp.array(jax.random.key_data(a), copy=True), impl=jax.random.key_impl(a)
            )
        return jnp.array(a, copy=True)

    return jax.tree.map(copy, tree)
