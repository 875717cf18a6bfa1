"""The pictures of runs and comparisons write what they show beside them, too."""

import csv
import json
from pathlib import Path

import pytest

from jaxtickets import report

RESULTS = Path(__file__).parents[2] / "experiments" / "results"


def beside(picture):
    with picture.with_suffix(".csv").open(newline="") as file:
        return list(csv.DictReader(file))


def found(name):
    return json.loads((RESULTS / name).read_text())


def test_a_comparison(tmp_path):
    comparison = found("compare-digits.json")
    rows = beside(report.draw_comparison(comparison, tmp_path / "comparison.png"))
    assert [row["title"] for row in rows] == [row["title"] for row in comparison["rows"]]
    assert [float(row["accuracy (share, mean)"]) for row in rows] == [
        row["scores"]["accuracy"]["mean"] for row in comparison["rows"]
    ]


def test_a_sweep(tmp_path):
    sweep = found("ablation-structure-digits.json")
    rows = beside(report.draw_sweep(sweep, tmp_path / "sweep.png"))
    for point, row in zip(sweep["points"], rows, strict=True):
        assert (point["series"], point["x"]) == (row["series"], float(row[sweep["label"]]))
        assert point["disagreement"] == float(row["disagreement (share)"])


def test_schemes(tmp_path):
    schemes = found("multi-ticket-demo.json")
    rows = beside(report.draw_gains(schemes, tmp_path / "gains.png"))
    single = schemes["rows"][0]["gain"]["single"]
    for row, (scheme, size) in zip(
        rows, ((scheme, size) for scheme in schemes["rows"] for size in (1, 2, 3)), strict=True
    ):
        score = scheme["gain"]["single"] if size == 1 else scheme["gain"]["ensemble"][str(size)]
        assert (row["scheme"], int(row["members"]), float(row["accuracy (of 1)"])) == (
            scheme["title"],
            size,
            score,
        )
        assert float(row["points above one BASELINE member"]) == pytest.approx(
            100 * (score - single)
        )
    rows = beside(report.draw_overlaps(schemes, tmp_path / "overlaps.png", most=2))
    masked = [scheme for scheme in schemes["rows"] if scheme["overlap"]]
    written = [float(row["overlap of masks (IoU)"]) for row in rows]
    assert written == [
        value for scheme in masked for line in scheme["overlap"][:2] for value in line[:2]
    ]


def test_a_run(tmp_path):
    phases = [{"kind": "Start"}, {"kind": "Train"}, {"kind": "Collect"}]
    config = {
        "run": {
            "plan": {"name": "dst", "phases": phases},
            "task": {"name": "LeNet"},
            "data": {"name": "digits"},
        }
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    records = [
        {
            "phase": 1,
            "epoch": epoch,
            "lr": 0.1,
            "lineages": [0, 1],
            "loss": [1 / 3, 2.0],
            "accuracy": [0.5, 0.6],
            "density": [0.2, 0.2],
        }
        for epoch in (1, 2)
    ]
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps(record) + "\n" for record in records)
    )
    rows = beside(report.draw_run(tmp_path))
    assert [
        (row["lineage"], row["child"], row["epoch of one lineage"], row["training loss"])
        for row in rows
    ] == [
        ("0", "", "1", "0.3333333333333333"),
        ("0", "", "2", "0.3333333333333333"),
        ("1", "", "1", "2.0"),
        ("1", "", "2", "2.0"),
    ]
