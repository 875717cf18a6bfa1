"""How much the members of an ensemble differ: in their labels, their probabilities and their masks.

Each measure has a matrix [M, M] over pairs of members, and its mean over the pairs of *different* members. The mean of
one member is nan: there is no pair.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import numpy as np
from numpy.typing import ArrayLike

from jaxtickets.evaluation.checks import EvaluationError, check_log_proba
from jaxtickets.masks import iou

PyTree = Any

LOG_FLOOR = math.log(np.finfo(np.float32).tiny)
"""Log-probabilities below this (-87.3, the smallest normal float32) are clipped to it in the KL divergence."""

_ROWS = 4096  # examples at a time, to bound the memory of the pairs


def disagreement_matrix(member_log_proba: ArrayLike) -> np.ndarray:
    """Share of examples on which two members predict different labels.

    Args:
      member_log_proba: log-probabilities [M, B, C].

    Returns:
      float64 [M, M] in [0, 1]: symmetric, 0 on the diagonal.

    Raises:
      EvaluationError: wrong shape, nothing in it, NaN, probabilities that do not sum to 1.

    >>> a, b = np.log([[0.9, 0.1], [0.8, 0.2]]), np.log([[0.7, 0.3], [0.4, 0.6]])
    >>> disagreement_matrix([a, b]).tolist()
    [[0.0, 0.5], [0.5, 0.0]]
    """
    labels = check_log_proba(member_log_proba, ndim=3, name="member_log_proba").argmax(-1)
    return np.stack([np.mean(labels != one, axis=-1) for one in labels])


def prediction_disagreement(member_log_proba: ArrayLike) -> float:
    """FreeTickets' prediction disagreement: mean over pairs of the share of examples with different predicted labels.

    It does not ask which label is right, so it is another measure than the "disagreement" of right/wrong outputs.

    Args:
      member_log_proba: log-probabilities [M, B, C].

    Returns:
      In [0, 1]; nan for one member.

    Raises:
      EvaluationError: as `disagreement_matrix`.

    References:
      Liu et al. 2022, arXiv:2106.14568; Fort et al. 2019, arXiv:1912.02757.

    Differs:
      The FreeTickets code adds 0.001 to every entry of its matrix that is not 0 (so that its heat map shows them) and
      averages over those entries only: its number is 0.001 higher, and pairs that agree everywhere are left out.

    >>> a, b = np.log([[0.9, 0.1], [0.8, 0.2]]), np.log([[0.7, 0.3], [0.4, 0.6]])
    >>> prediction_disagreement([a, b])
    0.5
    """
    return pair_mean(disagreement_matrix(member_log_proba))


def kl_matrix(member_log_proba: ArrayLike) -> np.ndarray:
    """KL divergence from member i to member j, in nats, averaged over examples.

    Entry (i, j) is mean over b of sum over c of p_i (log p_i - log p_j), where terms with p_i = 0 are 0. Each
    distribution is first normalised to sum to exactly 1, then logs are clipped at `LOG_FLOOR`, so that a p_j of
    exactly 0 gives a finite number (at most 87.4) and not inf. No probability that a normal float32 holds is touched.

    Args:
      member_log_proba: log-probabilities [M, B, C].

    Returns:
      float64 [M, M], not symmetric, 0 on the diagonal.

    Raises:
      EvaluationError: wrong shape, nothing in it, NaN, probabilities that do not sum to 1.

    >>> kl_matrix(np.log([[[0.5, 0.5]], [[0.9, 0.1]]])).round(4).tolist()
    [[0.0, 0.5108], [0.3681, 0.0]]
    """
    members = check_log_proba(member_log_proba, ndim=3, name="member_log_proba")
    count, examples, _ = members.shape
    total = np.zeros((count, count))
    for start in range(0, examples, _ROWS):
        log_p = members[:, start : start + _ROWS]
        log_p = log_p - np.log(np.exp(log_p).sum(-1, keepdims=True))
        p, log_p = np.exp(log_p), np.maximum(log_p, LOG_FLOOR)
        for i, j in itertools.permutations(range(count), 2):
            total[i, j] += np.sum(p[i] * (log_p[i] - log_p[j]))
    return np.maximum(total / examples, 0.0)  # rounding may go 1e-16 below


def pairwise_kl(member_log_proba: ArrayLike) -> float:
    """Mean KL divergence over ordered pairs of members: both directions of every pair, averaged. In nats.

    Args:
      member_log_proba: log-probabilities [M, B, C].

    Returns:
      0 or more; nan for one member. Finite where probabilities are exactly 0: see `kl_matrix`.

    Raises:
      EvaluationError: as `kl_matrix`.

    References:
      Liu et al. 2022, arXiv:2106.14568.

    Differs:
      The FreeTickets code takes the six ordered pairs of exactly three members; here all pairs of any number.

    >>> round(pairwise_kl(np.log([[[0.5, 0.5]], [[0.9, 0.1]]])), 4)
    0.4394
    """
    return pair_mean(kl_matrix(member_log_proba))


def mask_iou_matrix(masks: Sequence[PyTree]) -> np.ndarray:
    """Overlap of the masks: intersection over union of the *surviving* weights of two members, all leaves together.

    Weights are counted in integers. Leaves that are dense in every member do not count. A leaf that is dense in one
    member and masked in another counts as full in the first.

    Args:
      masks: M mask trees of equal structure; a masked leaf is a bool array, a dense one a 0-d True.

    Returns:
      float64 [M, M]: symmetric, 1 on the diagonal. nan where the union is empty: nothing is masked in any member (two
      dense networks have no masks to compare, which is not the same as having equal ones), or nothing survives.

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


class Masked(Protocol):
    """What `mask_overlap` asks of an ensemble."""

    @property
    def masks(self) -> Any:
        """A mask tree for each ticket."""
        ...


def mask_overlap(tickets: Masked) -> np.ndarray:
    """Overlap of the tickets' masks, pair by pair: figure 4 of the Multi-Ticket paper.

    Args:
      tickets: an ensemble, of which `masks` are read.

    Returns:
      float64 [M, M], `mask_iou_matrix(tickets.masks)`; its mean over pairs is `pair_mean` of it.

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
        raise EvaluationError(f"tickets: got {type(tickets).__name__} without masks, wanted an ensemble. Of mask trees: mask_iou_matrix.")
    return mask_iou_matrix(masks)


def mask_iou(masks: Sequence[PyTree]) -> float:
    """Mean overlap of the masks over pairs of members: see `mask_iou_matrix`.

    Args:
      masks: M mask trees of equal structure.

    Returns:
      In [0, 1]: 1 for equal masks, 0 for disjoint ones. nan for one member, where nothing is masked, and where a pair
      of masks keeps nothing at all.

    Raises:
      EvaluationError: as `mask_iou_matrix`.

    >>> mask_iou([{"w": np.array([True, True, False])}, {"w": np.array([False, True, False])}])
    0.5
    """
    return pair_mean(mask_iou_matrix(masks))


def pair_mean(matrix: ArrayLike) -> float:
    """Mean of a matrix [M, M] over ordered pairs of different members, which leaves out the diagonal; nan if M = 1.

    >>> pair_mean([[0.0, 1.0], [3.0, 0.0]])
    2.0
    """
    square = np.asarray(matrix, dtype=np.float64)
    others = square[~np.eye(len(square), dtype=bool)]
    return float(others.mean()) if others.size else float("nan")


def _mask_leaves(masks: Sequence[PyTree]) -> list[list[np.ndarray]]:
    """The leaves of each mask on the host, checked; a leaf dense in some members only is spelled out in those."""
    if not masks:
        raise EvaluationError("masks: got none, wanted one mask tree for each member.")
    trees = [jax.tree.structure(mask) for mask in masks]
    for member, tree in enumerate(trees):
        if tree != trees[0]:
            raise EvaluationError(f"masks: got {tree} for member {member}, wanted the tree of member 0, {trees[0]}.")
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree_util.tree_leaves_with_path(masks[0])]
    columns = []
    for path, leaves in zip(paths, zip(*(jax.tree.leaves(mask) for mask in masks), strict=True), strict=True):
        column = [np.asarray(leaf) for leaf in leaves]
        shapes = {leaf.shape for leaf in column if leaf.ndim}
        if any(leaf.dtype != bool or (leaf.ndim == 0 and not leaf) for leaf in column) or len(shapes) > 1:
            got = ", ".join(f"{leaf.dtype}{list(leaf.shape)}" if leaf.ndim else repr(leaf.item()) for leaf in column)
            raise EvaluationError(f"masks: got {got} at {path!r}, wanted bool arrays of one shape, or True for a dense leaf.")
        columns.append([np.broadcast_to(leaf, next(iter(shapes), ())) for leaf in column])
    return [[column[member] for column in columns] for member in range(len(trees))]
