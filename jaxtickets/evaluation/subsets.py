"""Scores of all ensembles that a set of trained members contains.

Accuracy is counted by `right_counts`. For other scores subsets are walked depth first, one member
added at a time, so a subset costs one addition and one score. Of two classes all that matters is
the sum of p(1) - p(0); F1 and Matthews' correlation are then made of two counts.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxtickets.errors import EvaluationError
from jaxtickets.evaluation.checks import check_labels, check_predictions, check_values
from jaxtickets.evaluation.count_right import right_counts
from jaxtickets.evaluation.task_scores import score_function

Score = str | Callable[[np.ndarray, np.ndarray], float]
Groups = int | Sequence[Sequence[int]] | None


def subset_scores(
    predictions: ArrayLike,
    y: ArrayLike,
    sizes: Sequence[int] | int,
    score: Score = "accuracy",
    groups: Groups = None,
) -> dict[int, np.ndarray]:
    """Scores of all ensembles of k out of n members, for every k, within each group of members.

    An ensemble predicts the mean of its members' probabilities, or of their values.

    Args:
      predictions: probabilities [M, B, C], or values [M, B] of a regression.
      y: integer labels [B], or values [B].
      sizes: k, or several, each from 1 to n.
      score: "accuracy", "f1", "matthews" (of probabilities), "pearson", "spearman" (of values), or
        a function of the ensemble's prediction, [B, C] or [B], and y.
      groups: lists of equally many members, which may not meet in an ensemble; a number of groups
        of consecutive members, M / groups each; or None for one group of all.

    Returns:
      By size, float64 [G, C(n, k)]: row g is of group g, in the order of
      `itertools.combinations(groups[g], k)`. nan where a correlation is not defined.

    Raises:
      EvaluationError: predictions, labels, sizes, score or groups that cannot be, or do not fit
        each other.

    Differs:
      Sums are in float64, and with named scores classes are compared by the sum of the differences
      of their
      probabilities: exactly equal ones give the lowest class, as argmax does, whatever they are
        divided by. All 616,665
      accuracies of up to ten of 20 members on 10,000 examples of ten classes take seconds
      (`experiments/benchmark.py`).

    >>> predictions = [[[0.9, 0.1], [0.4, 0.6]], [[0.6, 0.4], [0.9, 0.1]], [[0.2, 0.8], [0.3, 0.7]]]
    >>> subset_scores(predictions, [0, 1], sizes=(2, 3))
    {2: array([[0.5, 1. , 0. ]]), 3: array([[0.5]])}
    """
    members = check_predictions(predictions, leading=1)
    group_list = check_groups(groups, len(members))
    wanted_sizes = check_sizes(sizes, len(group_list[0]))
    targets = (
        check_labels(y, *members.shape[1:])
        if members.ndim == 3
        else check_values(y, members.shape[1])
    )
    if score == "accuracy" and members.ndim == 3:
        counts = [right_counts(members[list(group)], targets, wanted_sizes) for group in group_list]
        return {
            size: np.stack([row[size] for row in counts]) / len(targets) for size in wanted_sizes
        }
    prepare = _counting(score, members, targets) or _calling(score, targets)
    rows: list[dict[int, np.ndarray]] = []
    for group in group_list:
        parts, measure, finish = prepare(members[list(group)])
        rows.append(
            {
                size: finish(measured)
                for size, measured in _walk(parts, wanted_sizes, measure).items()
            }
        )
    return {size: np.stack([row[size] for row in rows]) for size in wanted_sizes}


def subset_means(predictions: ArrayLike, size: int, groups: Groups = None) -> np.ndarray:
    """The predictions of all ensembles of one size: the mean of the members of every subset.

    Args:
      predictions: probabilities [M, B, C], or values [M, B].
      size: k, from 1 to n.
      groups: as in `subset_scores`.

    Returns:
      float64 [G * C(n, k), B, C] or [G * C(n, k), B], group by group.

    Raises:
      EvaluationError: as `subset_scores`.

    >>> subset_means([[1.0, 2.0], [3.0, 4.0], [5.0, 9.0]], size=2).tolist()
    [[2.0, 3.0], [3.0, 5.5], [4.0, 6.5]]
    """
    members = check_predictions(predictions, leading=1)
    group_list = check_groups(groups, len(members))
    (size,) = check_sizes(size, len(group_list[0]))
    out = np.empty((len(group_list) * math.comb(len(group_list[0]), size), *members.shape[1:]))
    subsets = itertools.chain.from_iterable(
        itertools.combinations(group, size) for group in group_list
    )
    for row, subset in enumerate(subsets):
        out[row] = members[list(subset)].mean(0)
    return out


def check_sizes(sizes: Any, members: int) -> tuple[int, ...]:
    """Sizes of ensembles as a tuple, checked: rising, each once.

    Raises:
      EvaluationError: none, not integers, or not from 1 to the number of members.
    """
    try:
        wanted_sizes = sorted(
            {operator.index(size) for size in ([sizes] if np.ndim(sizes) == 0 else sizes)}
        )
    except TypeError:
        wanted_sizes = []
    if not wanted_sizes or wanted_sizes[0] < 1 or wanted_sizes[-1] > members:
        raise EvaluationError(
            f"sizes: got {sizes!r}, wanted integers from 1 to {members}, the members of a group."
        )
    return tuple(wanted_sizes)


def check_groups(groups: Any, members: int) -> tuple[tuple[int, ...], ...]:
    """Groups of members as tuples of their numbers, checked.

    Raises:
      EvaluationError: a number that does not divide the members; lists that are empty, of unequal
        length, or have members that are not there or stand in them twice.
    """
    if groups is None or isinstance(groups, int | np.integer):
        count = 1 if groups is None else int(groups)
        if count < 1 or members % count:
            raise EvaluationError(
                f"groups: got {groups}, wanted a number that divides the {members} members."
            )
        return tuple(
            tuple(range(start, start + members // count))
            for start in range(0, members, members // count)
        )
    try:
        group_list = tuple(tuple(operator.index(member) for member in group) for group in groups)
    except TypeError as error:
        raise EvaluationError(
            f"groups: got {groups!r:.80}, wanted lists of members, a number of groups or None."
        ) from error
    union = [member for group in group_list for member in group]
    fits = all(0 <= member < members for member in union) and len(set(union)) == len(union)
    if not union or not fits or len({len(group) for group in group_list}) > 1:
        raise EvaluationError(
            f"groups: got {groups!r:.80}, wanted equally long lists of different members, 0 to"
            f" {members - 1}."
        )
    return group_list


Walk = tuple[np.ndarray, Callable[[np.ndarray, int], Any], Callable[[list[Any]], np.ndarray]]


def _walk(
    parts: np.ndarray, sizes: tuple[int, ...], measure: Callable[[np.ndarray, int], Any]
) -> dict[int, list[Any]]:
    """A measure of every subset of the wanted sizes, by size, in the order of combinations.

    It is called as `measure(sum of the subset, its size)`.
    """
    members, deepest = len(parts), sizes[-1]
    next_wanted = [min(size for size in sizes if size >= depth) for depth in range(deepest + 1)]
    sums = np.empty((deepest, *parts.shape[1:]))
    results: dict[int, list[Any]] = {size: [] for size in sizes}

    def add_one(first: int, depth: int) -> None:  # to the subset whose sum is sums[depth - 2]
        # enough are left to reach a wanted size
        for member in range(first, members - (next_wanted[depth] - depth)):
            if depth == 1:
                sums[0] = parts[member]
            else:
                np.add(sums[depth - 2], parts[member], out=sums[depth - 1])
            if depth in results:
                results[depth].append(measure(sums[depth - 1], depth))
            if depth < deepest:
                add_one(member + 1, depth + 1)

    add_one(0, 1)
    return results


def _calling(score: Score, y: np.ndarray) -> Callable[[np.ndarray], Walk]:
    """The walk of any score: it is called with the mean of each subset."""
    function = score_function(score)
    return lambda members: (members, lambda total, size: float(function(total / size, y)), np.array)


def _counting(
    score: Score, members: np.ndarray, y: np.ndarray
) -> Callable[[np.ndarray], Walk] | None:
    """The walk of F1 and Matthews' correlation of two classes, by counts; None for others."""
    if members.ndim != 3 or not isinstance(score, str):
        return None
    if members.shape[2] == 2 and score in ("f1", "matthews"):
        # class 1 first: its right predictions are a count of a slice
        order = np.argsort(y != 1, kind="stable")
        positives, examples = int(np.count_nonzero(y == 1)), len(y)
        flags = np.empty(examples, bool)

        def count_ones(total: np.ndarray, size: int) -> tuple[int, int]:
            np.greater(total, 0, out=flags)
            return int(np.count_nonzero(flags)), int(np.count_nonzero(flags[:positives]))

        def finish(counts: list[tuple[int, int]]) -> np.ndarray:
            predicted, hits = np.array(counts, np.float64).T
            return from_counts(score, hits, predicted, np.float64(positives), examples)

        return lambda group: (
            np.ascontiguousarray((group[..., 1] - group[..., 0])[:, order]),
            count_ones,
            finish,
        )
    return None


def from_counts(
    score: str,
    hits: np.ndarray,
    predicted: np.ndarray,
    positives: np.ndarray | np.float64,
    examples: int,
) -> np.ndarray:
    """Accuracy, F1 or Matthews' correlation of two classes, from counts.

    Args:
      score: which of them.
      hits: examples of class 1 that are predicted so.
      predicted: examples that are predicted to be of class 1.
      positives: examples of class 1.
      examples: all.

    Returns:
      float64 of the counts' common shape; 0 for 0 / 0, as `f1` and `matthews` have it.
    """
    errors = positives + predicted - 2 * hits
    if score == "accuracy":
        return (examples - errors) / examples
    if score == "f1":
        top, bottom = 2 * hits, positives + predicted
    else:
        top = examples * hits - predicted * positives
        bottom = np.sqrt(predicted * (examples - predicted)) * np.sqrt(
            positives * (examples - positives)
        )
    return np.where(bottom == 0, 0.0, top / np.where(bottom == 0, 1.0, bottom))
