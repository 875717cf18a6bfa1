"""Counts of right predictions of all subsets against each subset's sum of margins, added one member at a time in float64."""

import itertools

import numpy as np
import pytest

from jaxtickets.evaluation import count_right as module
from jaxtickets.evaluation.count_right import right_counts


def by_definition(p, y, size):
    """Sums in float64 in the order of members; of equal classes the lowest wins."""
    rows, classes = np.arange(len(y)), np.arange(p.shape[-1])
    margins = p[:, rows, y][..., None] - p
    found = []
    for subset in itertools.combinations(range(len(p)), size):
        total = np.zeros(p.shape[1:])
        for member in subset:
            total += margins[member]
        beats = np.where(classes < y[:, None], total > 0, total >= 0) | (classes == y[:, None])
        found.append(int(beats.all(-1).sum()))
    return found


def logits(rng, members, examples, classes, y):
    values = rng.standard_normal((members, examples, classes))
    values[:, np.arange(examples), y] += 1
    return np.exp(values)


KINDS = {
    "random": lambda rng, *shape, y: logits(rng, *shape, y),
    "float32": lambda rng, *shape, y: logits(rng, *shape, y).astype(np.float32),
    "votes, which tie exactly": lambda rng, *shape, y: np.eye(shape[-1])[
        rng.integers(0, shape[-1], shape[:2])
    ],
    "shares, which tie after rounding": lambda rng, *shape, y: rng.integers(1, 4, shape).astype(
        float
    ),
    "constant": lambda rng, *shape, y: np.ones(shape),
    "all right": lambda rng, *shape, y: 0.1 + np.eye(shape[-1])[np.broadcast_to(y, shape[:2])],
    "all wrong": lambda rng, *shape, y: (
        0.1 + np.eye(shape[-1])[np.broadcast_to((y + 1) % shape[-1], shape[:2])]
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 30, 3), (2, 40, 2), (5, 60, 4), (10, 40, 3), (7, 25, 10)])
def test_every_subset_has_as_many_right_as_by_the_definition(kind, shape):
    rng = np.random.default_rng(0)
    y = rng.integers(0, shape[-1], shape[1])
    p = np.asarray(KINDS[kind](rng, *shape, y=y), np.float64)
    p /= p.sum(-1, keepdims=True)
    for sizes in (tuple(range(1, shape[0] + 1)), (shape[0],), (max(1, shape[0] // 2),)):
        found = right_counts(p, y, sizes)
        assert {size: counts.tolist() for size, counts in found.items()} == {
            size: by_definition(p, y, size) for size in sizes
        }


@pytest.mark.parametrize(
    "setting",
    [{"NARROW": 1}, {"LAST": 1}, {"NARROW": 2, "LAST": 3, "PAIRS": 40}, {"FEW": 1}, {"_CELLS": 1}],
)
def test_how_the_work_is_cut_changes_nothing(setting, monkeypatch):
    rng = np.random.default_rng(1)
    y = rng.integers(0, 4, 80)
    for kind in ("random", "votes, which tie exactly", "shares, which tie after rounding"):
        p = KINDS[kind](rng, 9, 80, 4, y=y)
        p = p / p.sum(-1, keepdims=True)
        whole = right_counts(p, y, (1, 4, 8))
        with monkeypatch.context() as patch:
            for name, value in setting.items():
                patch.setattr(module, name, value)
            cut = right_counts(p, y, (1, 4, 8))
        assert {size: counts.tolist() for size, counts in cut.items()} == {
            size: counts.tolist() for size, counts in whole.items()
        }


def test_a_difference_below_the_unit_of_the_integers_decides():
    # 1e-12 is far below a unit, 2^-27 and more: only the second look in float64 tells these apart.
    y = np.array([0, 0, 1, 1])
    shift = np.array([1e-12, -1e-12, 1e-12, -1e-12])
    first = np.stack([0.6 + shift, 0.4 - shift], -1)
    p = np.stack([first, np.tile([0.4, 0.6], (4, 1))])
    assert right_counts(p, y, (2,))[2].tolist() == [2] == by_definition(p, y, 2)
