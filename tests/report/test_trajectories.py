"""t-SNE of predictions: what goes into it, that it is scikit-learn's, and that it is the same every time."""

import csv
import sys

import numpy as np
import pytest
from scipy.special import log_softmax

from jaxtickets import report
from jaxtickets.errors import ReportError
from jaxtickets.report.pictures.trajectories import embed


@pytest.fixture
def records():
    rng = np.random.default_rng(0)
    ends = rng.normal(0, 4, (2, 6, 3))
    return [
        {
            "lineage": lineage,
            "step": 10 * step,
            "epoch": step / 2,
            "log_proba": log_softmax(ends[lineage] * step / 6, -1),
        }
        for step in reversed(range(7))  # in any order
        for lineage in range(2)
    ]


def test_the_map_is_scikit_learns_and_in_the_file(records, tmp_path):
    from sklearn.manifold import TSNE

    file = report.draw_trajectories(records, tmp_path / "tsne.png", seed=3)
    with file.with_suffix(".csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [(int(row["lineage"]), int(row["step"])) for row in rows] == [
        (lineage, 10 * step) for lineage in range(2) for step in range(7)
    ]
    written = np.array(
        [[row["first (no unit)"], row["second (no unit)"]] for row in rows], np.float32
    )
    ordered = sorted(records, key=lambda record: (record["lineage"], record["step"]))
    flat = np.stack([np.exp(record["log_proba"].astype(np.float32)).ravel() for record in ordered])
    # 14 points: the perplexity comes down from 30 to 13 / 3.
    theirs = TSNE(perplexity=13 / 3, init="pca", method="exact", random_state=3).fit_transform(flat)
    np.testing.assert_array_equal(written, theirs)
    again = report.draw_trajectories(records[::-1], tmp_path / "again.png", seed=3)
    assert again.with_suffix(".csv").read_bytes() == file.with_suffix(".csv").read_bytes()


def test_one_member(records, tmp_path):
    assert report.draw_trajectories(
        [record for record in records if record["lineage"] == 0], tmp_path / "one.png", seed=0
    )


def test_what_cannot_be_laid_out(records, tmp_path):
    with pytest.raises(ReportError, match="got 3, wanted 4 or more"):
        embed(records[:3], seed=0)
    with pytest.raises(ReportError, match="wanted one shape"):
        embed([*records, records[0] | {"log_proba": np.zeros((5, 3))}], seed=0)
    with pytest.raises(ReportError, match="nan or too large in 1 records, first at step 60"):
        embed([records[0] | {"log_proba": np.full((6, 3), np.nan)}, *records[1:]], seed=0)


def test_without_scikit_learn_it_says_what_to_install(records, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(ImportError, match=r"jaxtickets\[vision\]"):
        embed(records, seed=0)
