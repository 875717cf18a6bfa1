"""Tables and figures, from results and run folders."""

import json

import pytest
from rich.console import Console

from jaxtickets import report


def scores(accuracy):
    return {"accuracy": accuracy, "nll": 0.5, "ece": 0.021, "brier": 0.3}


@pytest.fixture
def run():
    return {
        "members": [
            scores(0.9) | {"density": 0.2, "ever_active": 0.5},
            scores(0.92) | {"density": 0.2, "ever_active": 0.6},
        ],
        "members_mean": scores(0.91),
        "ensemble": scores(0.95),
        "diversity": {"disagreement": 0.031, "kl": 0.1, "mask_iou": 0.25},
        "cost": {"training": 0.61, "inference": 0.68, "density": 0.2},
        "seconds": {"train": 60.0, "compile": 5.0, "total": 65.0},
        "ece_bins": 15,
        "plan": {"name": "edst"},
        "model": "LeNet(M)",
        "dataset": {"name": "cifar10"},
    }


def test_the_terminal_table_fits_eighty_columns_and_cuts_nothing(run):
    console = Console(width=80, no_color=True)
    with console.capture() as captured:
        console.print(report.results_table({"edst": run}))
    text = captured.get()
    assert "…" not in text
    rows = {line.split("  ")[0].strip(): line.split() for line in text.splitlines() if line.strip()}
    assert rows["edst ensemble"][2:] == [
        "95.00",
        "0.500",
        "2.1",
        "0.300",
        "0.200",
        "0.61x",
        "0.68x",
        "65",
    ]
    assert rows["member 1"][2:] == ["92.00", "0.500", "2.1", "0.300", "0.200", "0.34x"]
    assert "15 bins" in text
    assert "theoretical" in text


def test_an_infinite_nll_is_shown_as_such(run):
    run["ensemble"]["nll"] = None
    console = Console(width=80, no_color=True)
    with console.capture() as captured:
        console.print(report.results_table({"edst": run}))
    assert " inf " in captured.get()


def test_markdown_results(run):
    runs = [run | {"single_dense": run | {"members": run["members"][:1]}}]
    table = report.markdown_table(report.runs_table(runs)).splitlines()
    assert len(table) == 5
    assert all(line.count("|") == 9 for line in table)
    assert table[2].startswith("| **edst, LeNet(M), cifar10: ensemble of 2** | **95.00** |")
    assert table[4].startswith("| one dense network, same schedule | 95.00 |")


def test_markdown_benchmark():
    rows = [
        {
            "what": "a",
            "measured": 1.0,
            "against": 2.0,
            "ratio": 0.5,
            "wanted": ">= 0.7",
            "met": False,
        }
    ]
    assert "| a | 0.50 | >= 0.7 (missed) | 1 | 2 |" in report.markdown_table(
        report.benchmark_table({"rows": rows}), escape=False
    )


def test_replace_block(tmp_path):
    file = tmp_path / "README.md"
    file.write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    assert report.replace_block(file, "results", "new")
    assert file.read_text() == "before\n<!-- results -->\nnew\n<!-- /results -->\nafter\n"
    assert not report.replace_block(file, "results", "new")
    with pytest.raises(ValueError, match="benchmark"):
        report.replace_block(file, "benchmark", "new")


def test_draw_run_of_two_lineages_with_validation(tmp_path):
    phases = [
        {"kind": "Start"},
        {"kind": "Train"},
        {"kind": "Collect"},
        {"kind": "Escape"},
        {"kind": "Train"},
        {"kind": "Collect"},
    ]
    config = {
        "run": {
            "plan": {"name": "edst", "phases": phases},
            "task": {"name": "LeNet"},
            "data": {"name": "digits"},
        }
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    records = [
        {
            "phase": phase,
            "epoch": epoch,
            "lr": 0.1,
            "lineages": [0, 1],
            "loss": [1.0, 2.0],
            "accuracy": [0.5, 0.6],
        }
        | {"density": [0.2, 0.2], "validation_accuracy": [0.4, 0.5]}
        for phase, epoch in ((1, 1), (1, 2), (4, 3))
    ]
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps(record) + "\n" for record in records) + '{"cut'
    )
    path = report.draw_run(tmp_path)
    assert path is not None
    from matplotlib.image import imread

    picture = imread(path)
    assert picture.shape[0] > 500
    assert picture[..., :3].std() > 0.05  # not an empty page
