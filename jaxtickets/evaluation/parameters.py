"""Measures of how much the networks of an ensemble differ.

In their masks, their weights, and what they explored.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from jaxtickets import masks as mask_trees
from jaxtickets.errors import EvaluationError, MaskError
from jaxtickets.evaluation.pairs import pair_mean
from jaxtickets.masks import KERNELS, Rules, iou
from jaxtickets.masks.packing import unpacked_shapes

PyTree = Any

_AT_ONCE = 2**20  # weights of each member in float64 at a time


class Masked(Protocol):
    """The protocol of an ensemble with masks, as `mask_overlap` takes it."""

    @property
    def masks(self) -> Any:
        """A mask tree for each ticket."""
        ...


def comparable(tickets: Any) -> bool:
    """Whether the same index is the same weight in all networks.

    Where units were cut out of them it is not, unless they are of one run that cut them out before
    the first was collected. Packed layers count as whole.
    """
    networks = list(getattr(tickets, "members", ()))
    if not any("shrunk" in ticket.info for ticket in networks):
        return True
    owners = {
        (t.info.get("lineage"), t.info.get("child"), str(t.info.get("shrunk"))) for t in networks
    }
    whole = [unpacked_shapes(t.params, t.model_state)[0] for t in networks]
    shapes = {tuple(leaf.shape for leaf in jax.tree.leaves(params)) for params in whole}
    return len(owners) == len(shapes) == 1 and "lineage" in networks[0].info


def mask_iou_matrix(masks: Sequence[PyTree]) -> np.ndarray:
    """Overlap of the members' masks, pair by pair: intersection over union.

    Intersection over union of the *surviving* weights of two members, all leaves together.

    Weights are counted in integers. Leaves that are dense in every member do not count. A leaf that
    is dense in one member and masked in another counts as full in the first.

    Args:
      masks: M mask trees of equal structure; a masked leaf is a bool array, a dense one a 0-d True.

    Returns:
      float64 [M, M]: symmetric, 1 on the diagonal. nan where the union is empty: nothing is masked
        in any member (two
      dense networks have no masks to compare, which is not the same as having equal ones), or
      nothing survives.

    Raises:
      EvaluationError: no masks, trees or shapes that differ, leaves that are not bool.

    >>> a, b = {"w": np.array([True, True, False])}, {"w": np.array([False, True, True])}
    >>> mask_iou_matrix([a, b]).round(4).tolist()
    [[1.0, 0.3333], [0.3333, 1.0]]
    """
    members = _mask_leaves(masks)
    matrix = np.full((len(members), len(members)), np.nan)
    for i, j in itertools.combinations_with_replacement(range(len(members)), 2):
        matrix[i, j] = matrix[j, i] = iou(members[i], members[j])
    return matrix


def mask_overlap(tickets: Masked) -> np.ndarray:
    """Overlap of the tickets' masks, pair by pair: figure 4 of the Multi-Ticket paper.

    Args:
      tickets: an ensemble, of which `masks` are read.

    Returns:
      float64 [M, M], `mask_iou_matrix(tickets.masks)`; its mean over pairs is `pair_mean` of it.
        nan where units were cut out of the networks.

    Raises:
      EvaluationError: as `mask_iou_matrix`, and where there are no masks.

    References:
      Kobayashi et al. 2022, arXiv:2205.11833, section 4.3; Chen et al. 2020, arXiv:2007.12223.

    >>> class Two:
    ...     masks = [{"w": np.array([True, True, False])}, {"w": np.array([False, True, False])}]
    >>> mask_overlap(Two()).tolist()
    [[1.0, 0.5], [0.5, 1.0]]
    """
    masks = getattr(tickets, "masks", None)
    if masks is None:
        raise EvaluationError(
            f"tickets: got {type(tickets).__name__} without masks, wanted an ensemble. Of mask"
            " trees: mask_iou_matrix."
        )
    if not comparable(tickets):
        return np.full((len(masks), len(masks)), np.nan)
    return mask_iou_matrix(masks)


def mask_iou(masks: Sequence[PyTree]) -> float:
    """Mean overlap of the masks over pairs of members: see `mask_iou_matrix`.

    Args:
      masks: M mask trees of equal structure.

    Returns:
      In [0, 1]: 1 for equal masks, 0 for disjoint ones. nan for one member, where nothing is
        masked, and where a pair
      of masks keeps nothing at all.

    Raises:
      EvaluationError: as `mask_iou_matrix`.

    >>> mask_iou([{"w": np.array([True, True, False])}, {"w": np.array([False, True, False])}])
    0.5
    """
    return pair_mean(mask_iou_matrix(masks))


def mask_hamming_matrix(masks: Sequence[PyTree]) -> np.ndarray:
    """Share of the weights that exist in one of two members only: their masks' Hamming distance.

    Counted over the leaves that are masked in any member, all together, in integers. Unlike the
    overlap it grows with the density: random masks of density d differ in a share of 2 d (1 - d).

    Args:
      masks: M mask trees of equal structure; a masked leaf is a bool array, a dense one a 0-d True.

    Returns:
      float64 [M, M] in [0, 1]: symmetric, 0 on the diagonal. nan throughout where nothing is masked
        in any member.

    Raises:
      EvaluationError: no masks, trees or shapes that differ, leaves that are not bool.

    >>> a = {"w": np.array([True, True, False, False])}
    >>> b = {"w": np.array([False, True, True, False])}
    >>> mask_hamming_matrix([a, b]).tolist()
    [[0.0, 0.5], [0.5, 0.0]]
    """
    members = [[leaf for leaf in leaves if leaf.ndim] for leaves in _mask_leaves(masks)]
    weights = sum(leaf.size for leaf in members[0])
    matrix = np.full((len(members), len(members)), np.nan if weights == 0 else 0.0)
    for i, j in itertools.combinations(range(len(members)), 2):
        differing = sum(
            int(np.count_nonzero(a != b)) for a, b in zip(members[i], members[j], strict=True)
        )
        matrix[i, j] = matrix[j, i] = differing / weights if weights else np.nan
    return matrix


def weight_cosine_matrix(params: Sequence[PyTree], rules: Rules = KERNELS) -> np.ndarray:
    """Cosine of the angle between two members' prunable weights, as one vector.

    Only these: scales of norms start at 1 in every network and stay near it, and would bring
    unrelated networks together. Pruned weights are zeros of the vector, so members without a common
    weight are at 0.

    Args:
      params: M trees of weights of equal structure and shapes.
      rules: which leaves count, as in `masks.prunable`; those of an ensemble are its
        `task.prunable`.

    Returns:
      float64 [M, M] in [-1, 1]: symmetric, 1 on the diagonal; nan for a member whose weights are
      all 0.

    Raises:
      EvaluationError: no params, trees or shapes that differ, rules that find nothing.

    References:
      Fort et al. 2019, arXiv:1912.02757, section 3 (of all weights).

    >>> networks = [{"w": np.array([[3.0, 0.0]])}, {"w": np.array([[4.0, 3.0]])}]
    >>> weight_cosine_matrix(networks).round(9).tolist()
    [[1.0, 0.8], [0.8, 1.0]]
    """
    if not params:
        raise EvaluationError("params: got none, wanted a tree of weights for each member.")
    shapes = [jax.tree.map(np.shape, tree) for tree in params]
    for member, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise EvaluationError(
                f"params: got another tree or other shapes for member {member} than for member 0,"
                " wanted one network."
            )
    try:
        prunable = jax.tree.leaves(mask_trees.prunable(params[0], rules))
    except MaskError as error:
        raise EvaluationError(f"rules: {error}") from error
    gram = np.zeros((len(params), len(params)))
    for which, *column in zip(prunable, *(jax.tree.leaves(tree) for tree in params), strict=True):
        rows = [np.asarray(leaf).reshape(-1) for leaf in column] if which else []
        for start in range(0, len(rows[0]) if rows else 0, _AT_ONCE):
            block = np.stack([row[start : start + _AT_ONCE] for row in rows]).astype(np.float64)
            gram += block @ block.T
    lengths = np.sqrt(np.diag(gram))
    lengths[lengths == 0] = np.nan
    cosine = np.clip(gram / lengths / lengths[:, None], -1.0, 1.0)
    np.fill_diagonal(cosine, np.where(np.isnan(lengths), np.nan, 1.0))
    return cosine


def itop_rates(tickets: Iterable[Any]) -> list[float]:
    """In-time over-parameterisation: share of the prunable weights that a network ever had.

    Args:
      tickets: tickets, of which `info["ever_active"]` is read: `fit` writes it down when a ticket
        is collected.

    Returns:
      a share in [density, 1] for each ticket, 1.0 for dense ones; nan where nobody has written it
      down.

    References:
      Liu et al. 2021, arXiv:2102.02887, section 3.2 (the rate R_s).

    >>> from types import SimpleNamespace
    >>> itop_rates([SimpleNamespace(info={"ever_active": 0.5}), SimpleNamespace(info={})])
    [0.5, nan]
    """
    shares = [(getattr(ticket, "info", None) or {}).get("ever_active") for ticket in tickets]
    return [float("nan") if share is None else float(share) for share in shares]


def _mask_leaves(masks: Sequence[PyTree]) -> list[list[np.ndarray]]:
    """The leaves of each mask on the host, checked.

    A leaf dense in some members only is spelled out in those.
    """
    if not masks:
        raise EvaluationError("masks: got none, wanted one mask tree for each member.")
    trees = [jax.tree.structure(mask) for mask in masks]
    for member, tree in enumerate(trees):
        if tree != trees[0]:
            raise EvaluationError(
                f"masks: got {tree} for member {member}, wanted the tree of member 0, {trees[0]}."
            )
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(masks[0])
    ]
    columns = []
    for path, leaves in zip(
        paths, zip(*(jax.tree.leaves(mask) for mask in masks), strict=True), strict=True
    ):
        column = [np.asarray(leaf) for leaf in leaves]
        shapes = {leaf.shape for leaf in column if leaf.ndim}
        if (
            any(leaf.dtype != bool or (leaf.ndim == 0 and not leaf) for leaf in column)
            or len(shapes) > 1
        ):
            got = ", ".join(
                f"{leaf.dtype}{list(leaf.shape)}" if leaf.ndim else repr(leaf.item())
                for leaf in column
            )
            raise EvaluationError(
                f"masks: got {got} at {path!r}, wanted bool arrays of one shape, or True for a"
                " dense leaf."
            )
        columns.append([np.broadcast_to(leaf, next(iter(shapes), ())) for leaf in column])
    return [[column[member] for column in columns] for member in range(len(trees))]
