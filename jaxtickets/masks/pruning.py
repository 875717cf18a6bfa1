"""Pruning: the mask of the weights with the largest scores, at once or in rounds."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax

from jaxtickets.errors import MaskError
from jaxtickets.masks import kernels, trees
from jaxtickets.masks.counting import num_kept
from jaxtickets.masks.scores import Score, ScoreInputs, get, magnitude
from jaxtickets.masks.selection import same_on_the_mesh
from jaxtickets.masks.sparsity import random_bits
from jaxtickets.masks.structure import UNSTRUCTURED, Structure, arrange, arrange_back, structured
from jaxtickets.messages import checks

check = checks.Checks(MaskError, arrays=True)

PyTree = Any
Scope = Literal["layerwise", "global"]


def prune_to(
    mask: PyTree,
    params: PyTree,
    sparsity: jax.Array | float,
    scope: Scope = "layerwise",
    scores: PyTree | None = None,
    stacked: Sequence[str] | None = None,
    structure: Structure = UNSTRUCTURED,
    channels: kernels.Channels = "auto",
    sizes: Sequence[int] | None = None,
) -> PyTree:
    """The mask of the largest magnitudes among the surviving weights, at `sparsity`.

    Weights that are NaN or infinite rank last: they are the first to go.

    Args:
      mask: the present mask; pruned weights stay pruned, so a lower sparsity than the present one
        changes nothing.
      params: the weights.
      sparsity: share of zeros, in [0, 1), resolved to a millionth: per layer N - floor(sparsity *
        N) survive.
      scope: "layerwise" (the same share in every layer) or "global" (one threshold for all, no
        normalisation).
      scores: scores like `params` in place of the magnitudes (see `jaxtickets.masks.scores`);
        NaN ranks last.
      stacked: see `jaxtickets.masks.sparsity.prunable_shapes`.
      structure: what the mask may look like (see `jaxtickets.masks.structure`).
      channels: where input and output axes stand; see `jaxtickets.masks.sparsity.prunable_shapes`.
      sizes: N for each leaf of the params, where some of a network's weights were cut out (see
        `jaxtickets.plan.Shrink`); its own size if None.

    Raises:
      MaskError: a mask or scores that do not fit the params; a sparsity outside [0, 1]; an unknown
        scope; no structure.

    >>> mask = {"w": jnp.ones(4, bool)}
    >>> prune_to(mask, {"w": jnp.array([3.0, -4.0, 1.0, 2.0])}, 0.5)["w"].tolist()
    [True, True, False, False]
    """
    check.choice("scope", scope, get_args(Scope))
    check.fraction("sparsity", sparsity, "the share of zeros, ")
    structured(structure)
    sparsity = jnp.asarray(sparsity, jnp.float32)  # a Python number counts to a millionth, too
    trees.check(mask, params)
    if scores is None:
        scores = magnitude(params)
    check.same_tree("scores", scores, jax.tree.structure(params), "the params")
    leaves, tree = jax.tree.flatten(mask)
    ranks = jax.tree.leaves(scores)
    sparse = [i for i, m in enumerate(leaves) if m.ndim]
    if not sparse:
        return mask
    for i in sparse:
        if jnp.shape(ranks[i]) != leaves[i].shape:
            raise MaskError(
                f"scores: leaf {i} has the shape {list(jnp.shape(ranks[i]))}; its mask has"
                f" {list(leaves[i].shape)}."
            )
    named = kernels.named_leaves(params)
    shapes = [kernels.shape_of(named[i], stacked, channels) for i in sparse]
    rows = scope == "layerwise"
    old, ranks = (
        arrange(structure, [of[i] for i in sparse], shapes, rows) for of in (leaves, ranks)
    )
    whole = [leaves[i].size if sizes is None else sizes[i] for i in sparse]
    if scope == "global":
        count = num_kept(sum(whole), sparsity)
    else:
        count = [
            jnp.full(len(m), num_kept(size // max(len(m), 1), sparsity))
            if shape.stack
            else num_kept(size, sparsity)
            for m, size, shape in zip(old, whole, shapes, strict=True)
        ]
    kept = arrange_back(structure, structure.keep(ranks, count, where=old), shapes)
    for i, m in zip(sparse, kept, strict=True):
        leaves[i] = m
    return jax.tree.unflatten(tree, leaves)


def prune_by_scores(
    mask: PyTree,
    params: PyTree,
    score: str | Score,
    sparsity: jax.Array | float,
    inputs_of: Callable[[PyTree, PyTree], ScoreInputs] | None = None,
    *,
    scope: Scope = "global",
    rounds: int | None = None,
    keep_dense: Sequence[str] = (),
    stacked: Sequence[str] | None = None,
    structure: Structure = UNSTRUCTURED,
    channels: kernels.Channels = "auto",
    sizes: Sequence[int] | None = None,
) -> PyTree:
    """The mask of the weights with the largest scores, at `sparsity`, in one round or many.

    In round k of n the surviving weights are scored anew, and pruned to 1 - d (d' / d)^(k / n),
    where d is the density before and d' = 1 - sparsity: 1 - (1 - sparsity)^(k / n) of a whole
    network. All rounds are one loop, compiled once. Works under `jit` and `vmap`; sparsity may be
    traced.

    Args:
      mask: the present mask; pruned weights stay pruned.
      params: the weights.
      score: a name (see `jaxtickets.masks.scores.names`), or a `Score`.
      sparsity: share of zeros afterwards, of the weights that the mask covers; see `prune_to`.
      inputs_of: `(params, mask)` of a round, the params 0 where pruned, to what the score looks at:
        here gradients are computed. None suffices for a score of the weights alone.
      scope: "global" or "layerwise"; see `prune_to`.
      rounds: n; None for the score's own (100 of SynFlow's, 1 of others).
      keep_dense: path patterns of leaves that lose nothing and do not count.
      stacked: see `jaxtickets.masks.sparsity.prunable_shapes`.
      structure: what the mask may look like.
      channels: see `prune_to`.
      sizes: see `prune_to`.

    Raises:
      MaskError: an unknown score, or one that needs what `inputs_of` does not give; a number of
        rounds below 1; what `prune_to` raises.

    >>> params = {"w": jnp.array([[3.0, -4.0], [1.0, 2.0]])}
    >>> mask = {"w": jnp.ones((2, 2), bool)}
    >>> grads = {"w": jnp.array([[1.0, 1.0], [9.0, 1.0]])}
    >>> inputs = lambda params, mask: ScoreInputs(params, mask, grads)
    >>> prune_by_scores(mask, params, "snip", 0.5, inputs)["w"].tolist()
    [[False, True], [True, False]]

    References:
      Tanaka et al., 2020, arXiv:2006.05467, algorithm 1 (the exponential schedule).
    """
    score = get(score)
    rounds = score.rounds if rounds is None else rounds
    check.integer("rounds", rounds, "how often the score is computed on the way, ", least=1)
    check.fraction("sparsity", sparsity, "the share of zeros, ")
    trees.check(mask, params)
    leaves, tree = jax.tree.flatten(mask)
    stays = [any(re.search(p, path) for p in keep_dense) for path in trees.leaf_paths(params)]
    begin = [jnp.ones((), bool) if s else m for m, s in zip(leaves, stays, strict=True)]
    covered = [m for m in begin if m.ndim]
    counts = [m.size for m in begin] if sizes is None else sizes
    size = sum(n for n, m in zip(counts, begin, strict=True) if m.ndim)
    if not size:
        return mask

    def prune(mask: PyTree, sparsity: jax.Array | float) -> PyTree:
        whole = [old if s else m for old, m, s in zip(leaves, jax.tree.leaves(mask), stays)]
        present = jax.tree.unflatten(tree, whole)
        masked = trees.apply(present, params)
        inputs = ScoreInputs(masked, present) if inputs_of is None else inputs_of(masked, present)
        found = score(inputs)
        if (
            score.name == "random" and inputs.key is not None
        ):  # one draw for all leaves; growth draws leaf by leaf
            found = jax.tree.unflatten(tree, random_bits(inputs.key, leaves))
            found = jax.tree.map(lambda b, p: jnp.broadcast_to(b, p.shape), found, params)
        return prune_to(mask, params, sparsity, scope, found, stacked, structure, channels, sizes)

    if rounds == 1:
        pruned = prune(jax.tree.unflatten(tree, begin), sparsity)
    else:
        active = jnp.sum(jnp.stack([jnp.sum(m, dtype=jnp.int32) for m in covered]))
        density = active.astype(jnp.float32) / size
        target = jnp.asarray(sparsity, jnp.float32)

        def body(k: jax.Array, mask: PyTree) -> PyTree:
            share = (k + 1).astype(jnp.float32) / rounds
            now = 1 - density * ((1 - target) / density) ** share
            return prune(mask, jnp.where(k + 1 == rounds, target, jnp.clip(now, 0, 1)))

        # Inside shard_map what a loop carries must vary over the mesh as what comes of it does.
        same = same_on_the_mesh((mask, params, target)) != 0
        begin = jax.tree.unflatten(tree, [m | same for m in begin])
        pruned = lax.fori_loop(0, rounds, body, begin)
    kept = [old if s else m for old, m, s in zip(leaves, jax.tree.leaves(pruned), stays)]
    return jax.tree.unflatten(tree, kept)
