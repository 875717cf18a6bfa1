"""Dynamic sparse training of whole units: some go, as many others come, and the function stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxtickets.errors import MaskError
from jaxtickets.masks import trees
from jaxtickets.masks.scores import gradient, magnitude
from jaxtickets.masks.unit_exchange import (
    active_units,
    coming,
    lines_of,
    outgoing_norms,
    staying,
    to_exchange,
)
from jaxtickets.masks.units import Leaf, UnitTable
from jaxtickets.masks.whole_units import UNIT_GROWTHS, unit_means
from jaxtickets.messages import checks
from jaxtickets.transforms._masked_update import mask_moments
from jaxtickets.transforms._run_if import run_if

check = checks.Checks(MaskError, arrays=True)

PyTree = Any
Fresh = Callable[[jax.Array], tuple[PyTree, PyTree]]
Loss = Callable[[PyTree], jax.Array]


class ExchangedUnits(NamedTuple):
    """A network some of whose units are others now.

    Args:
      params: its weights, 0 where pruned.
      model_state: its batch statistics.
      mask: its mask.
      survivors: a mask tree: the weights whose moments live on.
    """

    params: PyTree
    model_state: PyTree
    mask: PyTree
    survivors: PyTree


def exchange_units(
    units: UnitTable,
    mask: PyTree,
    params: PyTree,
    model_state: PyTree,
    drop_fraction: jax.Array | float,
    key: jax.Array,
    fresh: Fresh,
    growth: str = "random",
    loss: Loss | None = None,
) -> ExchangedUnits:
    """One prune-grow of whole units: in every group the worst go, and as many others come.

    n = floor(drop_fraction * active), though never all, nor more than there are others. The n
    active units with the smallest mean magnitude of what writes them go, as in pruning with
    `jaxtickets.masks.Units`. Among those that were not active n come: random ones, or (growth
    "gradient") those for which the gradient of their outgoing weights would be largest. A unit that
    comes has fresh incoming weights, biases and batch statistics, and outgoing weights of 0: the
    outputs of the network are those that it had without the units that went, and the gradient of
    the outgoing weights is not 0, so that it learns from the next step on. What a mask prunes
    inside the units that stay, stays pruned. The number of active units of every group is what it
    was.

    Args:
      units: the network's units.
      mask: its mask; of every leaf that it may cover an array.
      params: its weights, 0 where pruned.
      model_state: its batch statistics; {} for none.
      drop_fraction: share of the active units that goes, in [0, 1].
      key: draws the units that come, and their weights.
      fresh: a key to the params and model state of a network at its beginning; of a wider one the
        first indices along each axis are taken.
      growth: "random" or "gradient".
      loss: params to the mean loss of a batch; for growth "gradient".

    Raises:
      MaskError: a mask that does not fit the params or leaves layers dense; units of another
        network; a beginning narrower than the network; another growth, or no loss for it.

    >>> from jaxtickets.masks.units import find_units, unit_mask
    >>> def mlp(params, state, x, train, key):
    ...     return jnp.tanh(x @ params["w1"]) @ params["w2"], state
    >>> params = {"w1": jnp.array([[3.0, 1.0, 0.0]]), "w2": jnp.array([[2.0, 5.0, 0.0]] * 2).T}
    >>> units = find_units(mlp, params, {}, jax.ShapeDtypeStruct((1,), jnp.float32))
    >>> mask = unit_mask(units, jnp.array([True, True, False]))
    >>> fresh = lambda key: (jax.tree.map(lambda p: jnp.full(p.shape, 7.0), params), {})
    >>> new = exchange_units(units, mask, params, {}, 0.5, jax.random.key(0), fresh)
    >>> new.params["w1"].tolist(), new.params["w2"].tolist()
    ([[3.0, 0.0, 7.0]], [[2.0, 2.0], [0.0, 0.0], [0.0, 0.0]])

    References:
      Chen et al., 2016, arXiv:1511.05641 (widening keeps the function); Evci et al., 2022,
      arXiv:2201.05125 (GradMax: outgoing gradients say which units to grow).

    Differs:
      GradMax computes, by an SVD, the weights whose gradient is largest; here all units that could
      come are candidates, with the fresh weights that they would come with, and one more gradient
      of the loss, by their outgoing weights, ranks them. Between two units that come in the same
      update the weight is fresh: it is 0 nowhere but in front of units that stay and of the
      outputs. Fresh weights are drawn for all inputs of a unit, pruned ones among them, as the
      network's first weights were; of a network that was cut (`jaxtickets.plan.Shrink`) as the
      whole one's.
    """
    check.choice("growth", growth, UNIT_GROWTHS)
    check.fraction("drop_fraction", drop_fraction, "a share of the active units, ")
    check.key("key", key)
    trees.check(mask, params)
    leaves, tree = jax.tree.flatten(params)
    masks = jax.tree.leaves(mask)
    states, state_tree = jax.tree.flatten(model_state)
    growth_key, fresh_key = jax.random.split(key)
    begins, begins_state = fresh(fresh_key)
    new = _like(units.params, begins, leaves)
    new_states = _like(units.model_state, begins_state, states)
    for leaf, m in zip(units.params, masks, strict=True):
        if leaf.prunable and jnp.shape(m) != leaf.shape:
            raise MaskError(
                f"units come and go under masks of all layers, and the mask leaves {leaf.path}"
                " dense: give it an array of True."
            )
    covered = [i for i, leaf in enumerate(units.params) if leaf.prunable]
    written = [units.params[i] for i in covered]
    flags = [masks[i] for i in covered]
    # One weight that is no number makes its unit the first to go, however large the others are.
    by_size = jax.tree.leaves(magnitude(params))
    sizes = [jnp.where(by_size[i] < 0, -jnp.inf, by_size[i]) for i in covered]
    active = active_units(units, masks)
    count = to_exchange(units, active, drop_fraction)
    stays = staying(units, active, unit_means(units, written, sizes, flags), count)

    if growth == "random":
        scores = jax.random.bits(growth_key, (len(units),), jnp.uint32)
    else:
        if loss is None:
            raise MaskError('units that grow by "gradient" need the loss; take growth="random".')
        candidates = _with(units, leaves, masks, new, stays, ~active)
        grads = jax.grad(loss)(tree.unflatten(candidates[0]))
        scores = outgoing_norms(units, jax.tree.leaves(gradient(grads)))
    comes = coming(units, active, scores, count)

    params_, masks_, survivors = _with(units, leaves, masks, new, stays, comes)
    reset = [
        jnp.where(lines_of(leaf, comes).own, n, s)
        for leaf, n, s in zip(units.model_state, new_states, states, strict=True)
    ]
    return ExchangedUnits(
        tree.unflatten(params_),
        state_tree.unflatten(reset),
        tree.unflatten(masks_),
        tree.unflatten(survivors),
    )


def exchange_units_if(
    due: jax.Array,
    network: tuple[PyTree, PyTree, PyTree, PyTree],
    inner: optax.GradientTransformation,
    drop_fraction: jax.Array,
    key: tuple[jax.Array, jax.Array],
    how: tuple[UnitTable, Fresh, str, Loss | None],
) -> tuple[PyTree, PyTree, PyTree, PyTree]:
    """`exchange_units` where it is due, and the moments with it: a real branch under `vmap`.

    Args:
      due: whether it is; bool scalar.
      network: mask, params, model state and the optimizer's state.
      inner: the optimizer.
      drop_fraction: share of the active units that goes.
      key: (key, step); folded inside the branch.
      how: the units, and `exchange_units`'s arguments from `fresh` on.
    """
    units, fresh, growth, loss = how

    def exchange(operand: PyTree) -> tuple[PyTree, PyTree, PyTree, PyTree]:
        (mask, params, state, moments), fraction, key, taken = operand
        draw = jax.random.fold_in(key, taken)
        options = (fraction, draw, fresh, growth, loss)
        new = exchange_units(units, mask, params, state, *options)
        moments = mask_moments(inner, moments, params, new.survivors)
        return new.mask, new.params, new.model_state, moments

    return run_if(due, exchange, lambda operand: operand[0], (network, drop_fraction, *key))


def _with(
    units: UnitTable,
    params: list[jax.Array],
    masks: list[jax.Array],
    fresh: list[jax.Array],
    stays: jax.Array,
    comes: jax.Array,
) -> tuple[list[jax.Array], list[jax.Array], list[jax.Array]]:
    """Leaves, masks and survivors of the network that has the units that stay and that come."""
    out: tuple[list[jax.Array], list[jax.Array], list[jax.Array]] = ([], [], [])
    for leaf, p, m, begin in zip(units.params, params, masks, fresh, strict=True):
        lines = lines_of(leaf, comes)
        value = jnp.where(lines.own, begin, jnp.where(lines.outgoing, jnp.zeros((), p.dtype), p))
        survives = ~lines.all
        if leaf.prunable:
            m = (m | lines.all) & ~lines_of(leaf, ~(stays | comes)).all
            value, survives = jnp.where(m, value, jnp.zeros((), p.dtype)), m & survives
        for of, one in zip(out, (value, m, survives), strict=True):
            of.append(one)
    return out


def _like(leaves: tuple[Leaf, ...], begins: PyTree, now: list[jax.Array]) -> list[jax.Array]:
    """What a network has at its beginning, in the shapes that it has now."""
    out, fresh = [], jax.tree.leaves(begins)
    if not len(leaves) == len(fresh) == len(now):
        raise MaskError(
            f"the units are of {len(leaves)} arrays, the network has {len(now)}, and at its"
            f" beginning {len(fresh)}: find the units of this network, with its model_state."
        )
    for leaf, begin, array in zip(leaves, fresh, now, strict=True):
        pairs = zip(begin.shape, array.shape, strict=True)
        if begin.ndim != array.ndim or any(n < size for n, size in pairs):
            raise MaskError(
                f"units grow with fresh weights, and {leaf.path} begins as {list(begin.shape)},"
                f" which is less than the {list(array.shape)} that it has."
            )
        out.append(begin[tuple(slice(n) for n in array.shape)].astype(array.dtype))
    return out
