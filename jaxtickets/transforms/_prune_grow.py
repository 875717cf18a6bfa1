"""prune_grow: dynamic sparse training (RigL, SET). Drop weights, grow others, keep the count."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from jaxtickets import masks
from jaxtickets.errors import MaskError
from jaxtickets.masks import KERNELS, Rules, kernels
from jaxtickets.masks import sparsity as budgets
from jaxtickets.masks.scores import Score, ScoreInputs, magnitude
from jaxtickets.masks.structure import (
    UNSTRUCTURED,
    Structure,
    arrange,
    arrange_back,
    structured,
)
from jaxtickets.messages import checks
from jaxtickets.transforms._masked_update import (
    check_update,
    is_placeholder,
    masked_step,
    optimizer,
    own_copy,
    stand_in,
)
from jaxtickets.transforms._run_if import run_if
from jaxtickets.transforms._scoring import known_score, loss_of

check = checks.Checks(MaskError, arrays=True)

PyTree = Any
Growth = str | Score
Regrown = Literal["keep", "zero"]
GIVEN = frozenset({"mask", "grads", "key"})
FRACTION = "a share of the active weights, "


class PruneGrowState(NamedTuple):
    """State of `prune_grow`.

    Args:
      count: steps taken, int32.
      key: what random growth draws from, folded with `count`.
      mask: the present mask.
      ever_active: weights that were active at any time (ITOP), a mask tree; dense markers alone
        unless it is tracked.
      inner: the inner optimizer's state.
    """

    count: jax.Array
    key: jax.Array
    mask: PyTree
    ever_active: PyTree
    inner: PyTree


def evolve_mask(
    mask: PyTree,
    params: PyTree,
    grads: PyTree,
    drop_fraction: jax.Array | float,
    key: jax.Array,
    growth: Growth = "gradient",
    regrown: Regrown = "keep",
    stacked: Sequence[str] | None = None,
    structure: Structure = UNSTRUCTURED,
    channels: kernels.Channels = "auto",
    loss: Callable[[PyTree], jax.Array] | None = None,
) -> tuple[PyTree, PyTree]:
    """One prune-grow, leaf by leaf: drop the smallest weights, grow as many others.

    n = floor(drop_fraction * active). The n active weights of smallest magnitude go; among the
    inactive ones (the just dropped included) the n with the largest |gradient| come, or n random
    ones. Leaves without an inactive weight are skipped. The number of active weights of every leaf
    stays what it was; in a stack of layers that of every layer.

    What is not finite ranks last: a weight that is NaN or infinite is the first to go, and one with
    such a gradient the last to come. Of those, where there are not enough others, the just dropped
    come first, so that a gradient of nothing but NaN leaves the mask as it is.

    Args:
      mask: the present mask.
      params: weights, 0 where pruned.
      grads: gradient of the loss with respect to *all* weights at the masked params, averaged over
        devices and accumulation steps, unclipped. Not read with random growth.
      drop_fraction: share of the active weights to replace, in [0, 1].
      key: for random growth.
      growth: what comes, by the name of a score: "gradient" (RigL), "random" (SET), or another of
        `jaxtickets.masks.scores`, or a `Score`.
      regrown: what becomes of a weight that is dropped and grown in the same update: it keeps its
        value and moments ("keep", RigL) or starts from 0 ("zero", FreeTickets' code).
      stacked: which leaves are stacks of layers (see `jaxtickets.masks.sparsity.prunable_shapes`).
      structure: what the mask may look like (see `jaxtickets.masks.structure`). With `Blocks` whole
        blocks go and come, and their number stays.
      channels: where input and output axes stand, for the structure.
      loss: params to the mean loss of the batch, for a growth that needs it.

    Returns:
      `(mask, survivors)`: the new mask, and those of its weights whose value and moments live on.
      All others, newly grown ones among them, are to be 0.

    Raises:
      MaskError: a mask or gradients that do not fit the params; a fraction outside [0, 1]; no key;
        an unknown `regrown`; a `growth` that is unknown, or needs what is not here; no structure.

    References:
      Evci et al., 2020, arXiv:1911.11134, algorithm 1; Mocanu et al., 2018 (random growth).

    Differs:
      FreeTickets' code also resets the smallest half of layers without inactive weights; they are
      skipped here.
    """
    check.choice("regrown", regrown, get_args(Regrown))
    score = known_score("evolve_mask", "growth", growth, GIVEN)
    check.fraction("drop_fraction", drop_fraction, FRACTION)
    check.key("key", key)
    masks.check(mask, params)
    if "grads" in score.needs:
        check.same_shapes("gradients", grads, params, masks.leaf_paths(params))
    leaves, tree = jax.tree.flatten(mask)
    sparse = [i for i, m in enumerate(leaves) if m.ndim]
    named = kernels.named_leaves(params)
    shapes = [kernels.shape_of(named[i], stacked, channels) for i in sparse]
    stacks = [shape.stack > 0 for shape in shapes]

    def chosen(values: PyTree) -> list[jax.Array]:
        flat = jax.tree.leaves(values)
        return arrange(
            structured(structure, grows=True), [flat[i] for i in sparse], shapes, rows=True
        )

    old = chosen(mask)
    candidates = chosen(score(ScoreInputs(params, mask, grads, key, loss)))
    if score.name == "gradient":  # of those without a number the just dropped come first
        candidates = [
            jnp.where((c < 0) & ~m, jnp.float32(-2), c)
            for c, m in zip(candidates, old, strict=True)
        ]
    drop_by = chosen(magnitude(params))
    stay, new = structure.replace(old, drop_by, candidates, drop_fraction, stacks)
    living = [n & m if regrown == "keep" else s for s, n, m in zip(stay, new, old, strict=True)]
    new_leaves, survivors = list(leaves), list(leaves)
    arranged_back = (arrange_back(structure, of, shapes) for of in (new, living))
    for i, m, alive in zip(sparse, *arranged_back, strict=True):
        new_leaves[i], survivors[i] = m, alive
    return jax.tree.unflatten(tree, new_leaves), jax.tree.unflatten(tree, survivors)


def evolve_if(
    due: jax.Array,
    mask: PyTree,
    grads: PyTree,
    drop_fraction: jax.Array,
    key: tuple[jax.Array, jax.Array],
    how: tuple[Any, ...],
    moved: Callable[[PyTree], PyTree],
    given: PyTree,
) -> tuple[PyTree, PyTree]:
    """`evolve_mask` where it is due, as `masked_step` asks for it: the mask, and who lives on.

    A real branch under `vmap` too, and `key`, (key, step), is folded inside it: off schedule
    nothing is drawn. `how` are `evolve_mask`'s arguments from `growth` on.
    """

    def evolve(operand: PyTree) -> tuple[PyTree, PyTree]:
        mask, given, grads, fraction, key, taken = operand
        params, draw = moved(given), jax.random.fold_in(key, taken)
        return evolve_mask(mask, params, grads, fraction, draw, *how)

    operand = (mask, given, grads, drop_fraction, *key)
    return masks_if(due, evolve, operand, mask, how[1])


def masks_if(
    due: jax.Array,
    evolve: Callable[[PyTree], tuple[PyTree, PyTree]],
    operand: PyTree,
    mask: PyTree,
    regrown: Regrown,
) -> tuple[PyTree, PyTree]:
    """The mask and the survivors that `evolve` makes where it is due; the operand begins with the
    mask.

    Of weights that keep their value the survivors follow from both masks, so that off schedule one
    mask is written, and not two.
    """
    if regrown == "zero":
        return run_if(due, evolve, lambda o: (o[0], o[0]), operand)
    new = run_if(due, lambda o: evolve(o)[0], lambda o: o[0], operand)
    return new, jax.tree.map(jnp.logical_and, new, mask)


def prune_grow(
    inner: optax.GradientTransformation,
    *,
    key: jax.Array,
    sparsity: float | None = None,
    distribution: budgets.Distribution = "erk",
    mask: PyTree | None = None,
    drop_fraction: float | jax.Array | Callable[[jax.Array], Any] = 0.5,
    update_every: int | jax.Array = 1000,
    begin: int | jax.Array = 0,
    end: int | jax.Array | None = None,
    growth: Growth = "gradient",
    regrown: Regrown = "keep",
    weight_update: bool = True,
    track_ever_active: bool = False,
    prunable: Rules = KERNELS,
    stacked: Sequence[str] | None = None,
    channels: kernels.Channels = "auto",
    structure: Structure = UNSTRUCTURED,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer `inner` on a sparse network whose mask evolves: RigL; SET by random growth.

    Every `update_every` steps the mask is replaced by `evolve_mask`'s. Grown weights start at 0
    with moments 0. Between updates it is `keep_masked`; under `vmap` off-schedule steps pay nothing
    for the updates either.

    Steps are numbered as optax does: by how many were taken before, so that the first is 0.

    It stands outermost: `prune_grow(optax.chain(...), ...)`. A chain *around* it that scales or
    adds to its updates, a lookahead or schedule-free optimizer around it, and an average of the
    params revive pruned weights (see `jaxtickets.masks.audit`).

    Args:
      inner: any optax optimizer or chain. Clipping or accumulation *inside* leaves the gradient
        that growth sees alone; `optax.MultiSteps(prune_grow(...), k)` grows by the accumulated one.
      key: draws the first mask and random growth. Members need different keys: under
        `jax.vmap(tx.init)` all would share this one, and so one mask. Map over the keys as well,
        `jax.vmap(lambda key, params: prune_grow(..., key=key).init(params))(keys, params)`; each
        member's state keeps its own, so that any of these transforms does the updates.
      sparsity: share of zeros of the first, random mask, in [0, 1). This or `mask`.
      distribution: layer-wise budgets of the first mask: "erk", "er" or "uniform".
      mask: a first mask of your own instead.
      drop_fraction: share of active weights replaced per update; a number, or a schedule of the
        step's number (`jaxtickets.masks.sparsity.cosine(0.5, steps)` is RigL's), clipped to [0, 1].
        It is resolved to a millionth.
      update_every: Delta T: one step in so many updates the mask, as in `optax.MultiSteps`:
        of those numbered n - 1, 2 n - 1, ...
      begin: the number of the first step at which an update may happen.
      end: that of the last such step; None for no end (FreeTickets). RigL ends at 75 % of training.
      growth: "gradient" (RigL), "random" (SET), or another score (see `evolve_mask`). One that
        needs the loss takes `tx.update(grads, state, params, value_fn=loss)`.
      regrown: see `evolve_mask`.
      weight_update: whether the weights are also updated on a step that updates the mask: first the
        weights, then prune-grow with the gradient of the weights before (True, FreeTickets). False
        replaces the one by the other and leaves the inner optimizer's state as it was (RigL).
      track_ever_active: keep in the state which weights were ever active (one byte per weight), for
        ITOP's rate.
      prunable: path rules (see `jaxtickets.masks.prunable`).
      stacked: which leaves are stacks of layers, each with its own budget (see
        `jaxtickets.masks.sparsity.prunable_shapes`).
      channels: where a kernel's input and output axes stand, for "er" and structures (see
        `jaxtickets.masks.sparsity.prunable_shapes`).
      structure: what the mask may look like, the first and all others (see
        `jaxtickets.masks.structure`).

    Returns:
      A transform; its state is a `PruneGrowState`, `state.mask` the mask.

    Raises:
      MaskError: an `inner` that is no optimizer; no key; neither or both of `sparsity` and `mask`;
        a sparsity outside [0, 1); a drop fraction outside [0, 1]; steps that are no whole numbers
        or negative, `update_every` below 1, an `end` before `begin`; an unknown choice; at `init`,
        rules or a mask that do not fit the params; at `update`, gradients or a state that do not.

    >>> params = {"kernel": jnp.ones((10, 10)), "bias": jnp.zeros(10)}
    >>> tx = prune_grow(optax.adam(1e-3), sparsity=0.8, update_every=2, key=jax.random.key(0))
    >>> state = tx.init(params)
    >>> for _ in range(4):
    ...     updates, state = tx.update(params, state, params)
    ...     params = optax.apply_updates(params, updates)
    >>> masks.count(state.mask), int((params["kernel"] != 0).sum()) <= 20
    (20, True)

    References:
      Evci et al., 2020, arXiv:1911.11134; Mocanu et al., 2018; Liu et al., 2021, arXiv:2106.14568,
      section 3.

    Differs:
      A grown weight's second Adam moment is 0 while the bias correction has long ended, so its
      first step is (1 - b1) / sqrt(1 - b2) = 3.2 times the learning rate, as in every
      implementation that zeroes moments.
    """
    inner = optimizer(inner)
    check.key("key", key)
    if (sparsity is None) == (mask is None):
        raise MaskError(
            "prune_grow wants either sparsity=0.8 (a random first mask) or mask=..., one of them."
        )
    if sparsity is not None:
        budgets.check_sparsity(sparsity)
    score = known_score("prune_grow", "growth", growth, GIVEN)
    structured(structure, grows=True)
    check.choice("regrown", regrown, get_args(Regrown))
    check.choice("distribution", distribution, get_args(budgets.Distribution))
    check.choice("channels", channels, get_args(kernels.Channels))
    if not callable(drop_fraction):
        check.fraction("drop_fraction", drop_fraction, FRACTION)
    check.integer("update_every", update_every, "a number of steps, ", least=1)
    check.integer(
        "begin", begin, "the number of the first step at which an update may happen, ", least=0
    )
    if end is not None:
        check.integer(
            "end",
            end,
            "None, or the number of the last step at which an update may happen, ",
            least=0,
        )
        if not (checks.is_traced(begin) or checks.is_traced(end)) and end < begin:
            raise MaskError(
                f"no update would ever happen: end={checks.shown(end)} is before"
                f" begin={checks.shown(begin)}."
            )
    check.flag("weight_update", weight_update)
    check.flag("track_ever_active", track_ever_active)
    masks.check_rules(prunable)
    if stacked is not None:
        check.patterns("stacked", stacked)

    def init(params: PyTree) -> PruneGrowState:
        if is_placeholder(params):
            first = stand_in(params) if mask is None else mask
            return PruneGrowState(jnp.zeros((), jnp.int32), key, first, first, inner.init(params))
        first = mask
        if first is None:
            assert sparsity is not None
            draw = jax.random.fold_in(key, 0)
            first = budgets.random_mask(
                draw,
                params,
                sparsity,
                distribution,
                prunable,
                stacked=stacked,
                channels=channels,
                structure=structure,
            )
        masks.check(first, params)
        ever_active = own_copy(first) if track_ever_active else masks.dense(params)
        return PruneGrowState(
            jnp.zeros((), jnp.int32),
            own_copy(key),
            own_copy(first),
            ever_active,
            inner.init(params),
        )

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PruneGrowState]:
        grads, params = updates, check_update("prune_grow", updates, state, params, PruneGrowState)
        step, taken = state.count, jnp.asarray(optax.safe_increment(state.count))
        due = (taken % update_every == 0) & (step >= begin) & (True if end is None else step <= end)
        fraction = drop_fraction(step) if callable(drop_fraction) else drop_fraction
        fraction = jnp.clip(jnp.asarray(fraction, jnp.float32), 0, 1)
        key = (state.key, taken)  # folded where it is used; a draw of 0 is the first mask's
        loss = loss_of("prune_grow", score, extra)
        how = (score, regrown, stacked, structure, channels, loss)
        next_mask = functools.partial(evolve_if, due, state.mask, grads, fraction, key, how)
        no_update = None if weight_update else due
        stepped = masked_step(
            inner, grads, state.inner, params, state.mask, next_mask, no_update, **extra
        )
        ever_active = state.ever_active
        if track_ever_active:
            ever_active = jax.tree.map(lambda e, m: e | m, ever_active, stepped.mask)
        new = PruneGrowState(taken, state.key, stepped.mask, ever_active, stepped.moments)
        return stepped.updates, new

    return optax.GradientTransformationExtraArgs(init, update)
