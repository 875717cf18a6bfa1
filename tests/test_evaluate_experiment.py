"""evaluate.py as its users meet it: run folders, ticket files and predictions in, one evaluation.json, tables and pictures out."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxtickets as jt
from jaxtickets.errors import ReportError

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.usefixtures("programs_are_compiled_once", "experiments_are_importable")
QUICK = [
    "--preset",
    "demo",
    "--members",
    "2",
    "--explore",
    "1",
    "--refine",
    "1",
    "--update-every",
    "10",
    "--probe",
    "1",
]


def script(name, *flags, status=0):
    command = [sys.executable, str(ROOT / "experiments" / name), *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == status, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "edst"
    script("edst_cifar.py", *QUICK, "--out", out)
    return out


@pytest.fixture(scope="module")
def predictions(folder, tmp_path_factory):
    """The run's own predictions, as somebody else would bring them."""
    file = tmp_path_factory.mktemp("elsewhere") / "theirs.npz"
    test = jt.data.load("digits", "test")
    tickets = jt.load(
        folder / "tickets.safetensors", jt.classification(jt.models.WideResNet(10, 1))
    )
    np.savez(file, proba=np.exp(tickets.member_log_proba(test)), y=test.y)
    return file


def config(*sources, **settings):
    import evaluate

    return evaluate.Config(sources=tuple(map(Path, sources)), **{"figures": False} | settings)


def evaluated(*sources, **settings):
    import evaluate

    return evaluate.evaluate(config(*sources, **settings))


@pytest.fixture(scope="module")
def all_of_it(folder, predictions, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation")
    flags = ("--suite", "all", "--severities", 1, "--corruptions", "fog", "contrast", "--out", out)
    return out, script("evaluate.py", folder, predictions, *flags)


def test_every_part_of_the_suite(all_of_it, folder):
    out, done = all_of_it
    found = json.loads((out / "evaluation.json").read_text())
    ours, theirs = found["rows"]
    assert (ours["name"], ours["method"], ours["model"], ours["tickets"]) == (
        "edst",
        "edst",
        "WideResNet(10, 1)",
        2,
    )
    assert ours["run"] == json.loads((folder / "results.json").read_text())
    parts = ours["evaluation"]["parts"]
    assert set(parts) == {"corrupted", "ood", "adversarial", "diversity", "features", "landscape"}
    assert [(one["corruption"], one["severity"]) for one in parts["corrupted"]["sets"]] == [
        ("fog", 1),
        ("contrast", 1),
    ]
    assert parts["corrupted"]["generated"] is True
    assert parts["corrupted"]["mean"]["accuracy"] == np.mean(
        [one["accuracy"] for one in parts["corrupted"]["sets"]]
    )
    assert set(parts["ood"]) == {"noise"}
    assert len(parts["adversarial"]["crafted_on_members"]) == 2
    assert len(parts["landscape"]["lines"]) == 1
    assert set(theirs["evaluation"]["parts"]) == {"diversity"}
    assert "theirs: no features: predictions are all that there is of it" in done.stdout
    assert "generated" in done.stdout
    assert (out / "table.md").read_text().startswith("| | accuracy")
    assert r"\begin{tabular}" in (out / "table.tex").read_text()
    for name in (
        "subsets",
        "severities",
        "corruptions",
        "features",
        "edst/reliability",
        "edst/line",
        "edst/layers",
        "edst/trajectories",
    ):
        assert (out / f"{name}.png").is_file(), name
        assert (out / f"{name}.csv").is_file(), name


def test_predictions_score_as_the_networks_that_made_them(all_of_it):
    ours, theirs = (
        row["evaluation"]
        for row in json.loads((all_of_it[0] / "evaluation.json").read_text())["rows"]
    )
    for name, value in ours["ensemble"].items():
        assert theirs["ensemble"][name] == pytest.approx(value, rel=1e-5), (
            name
        )  # log of exp in float32
    assert (
        theirs["parts"]["diversity"]["disagreement"] == ours["parts"]["diversity"]["disagreement"]
    )


def test_it_agrees_with_what_the_run_said(all_of_it, folder):
    ours = json.loads((all_of_it[0] / "evaluation.json").read_text())["rows"][0]
    said = json.loads((folder / "results.json").read_text())
    assert ours["evaluation"]["ensemble"] == said["ensemble"] | {
        "adaptive_ece": ours["evaluation"]["ensemble"]["adaptive_ece"]
    }
    assert ours["subsets"]["accuracy"]["1"]["mean"] == pytest.approx(
        said["members_mean"]["accuracy"]
    )
    assert ours["subsets"]["accuracy"]["2"]["max"] == said["ensemble"]["accuracy"]


def test_what_is_there_is_not_measured_again(folder, tmp_path, monkeypatch):
    how = {"suite": "corrupted,diversity", "corruptions": ("fog",), "out": tmp_path}
    first = evaluated(folder, severities=(1,), **how)
    (row,) = (tmp_path / "rows").iterdir()
    written = row.stat().st_mtime_ns
    assert evaluated(folder, severities=(1,), **how)["rows"] == first["rows"]
    assert row.stat().st_mtime_ns == written
    asked = []
    one_set = jt.data.CorruptedSets.__getitem__
    monkeypatch.setattr(
        jt.data.CorruptedSets,
        "__getitem__",
        lambda sets, i: asked.append(sets.pairs[i]) or one_set(sets, i),
    )
    more = evaluated(folder, severities=(1, 2), **how)
    assert asked == [("fog", 2)]  # severity 1 is kept
    assert (
        more["rows"][0]["evaluation"]["parts"]["corrupted"]["sets"][0]
        == first["rows"][0]["evaluation"]["parts"]["corrupted"]["sets"][0]
    )
    row.write_text("{")  # cut off: measured anew
    assert evaluated(folder, severities=(1,), **how)["rows"] == first["rows"]


def test_votes_are_another_row_file(folder, tmp_path):
    evaluated(folder, out=tmp_path)
    votes = evaluated(folder, combine="vote", out=tmp_path)
    assert votes["rows"][0]["evaluation"]["combine"] == "vote"
    assert len(list((tmp_path / "rows").iterdir())) == 2


def test_a_ticket_file_and_a_folder_of_runs(folder, tmp_path):
    file = tmp_path / "mine.safetensors"
    file.write_bytes((folder / "tickets.safetensors").read_bytes())
    found = evaluated(file, folder.parent, folder, out=tmp_path / "out")
    assert [row["name"] for row in found["rows"]] == [
        "mine",
        f"{folder.parent.name}/edst",
        f"{folder.parent.name}/edst (2)",
    ]
    assert found["rows"][0]["evaluation"] == found["rows"][1]["evaluation"]


def test_a_part_of_the_test_set_says_so(folder, tmp_path):
    found = evaluated(folder, examples=50, out=tmp_path)
    assert found["test"]["name"] == "digits, first 50"
    assert found["rows"][0]["evaluation"]["examples"] == 50


def test_single_networks_stand_beside_their_ensemble(folder, predictions, tmp_path):
    """Their scores are those of the first member; their cost is not the run's."""
    (whole,) = evaluated(folder, out=tmp_path)["rows"]
    found = evaluated(folder, predictions, first=1, out=tmp_path)
    ours, theirs = found["rows"]
    assert (ours["name"], ours["tickets"], ours["part"], ours["run"]) == (
        "edst, first",
        1,
        True,
        None,
    )
    assert ours["density"] == pytest.approx(0.05, abs=1e-3)
    assert ours["evaluation"]["ensemble"] == whole["evaluation"]["members"][0]
    assert (
        theirs["evaluation"]["ensemble"]["accuracy"]
        == whole["evaluation"]["members"][0]["accuracy"]
    )
    with pytest.raises(ReportError, match=r"--first 3: .* has 2"):
        evaluated(folder, first=3, out=tmp_path)
    done = script("report.py", folder, tmp_path / "evaluation.json", "-o", tmp_path / "r.html")
    assert "1 evaluation" in done.stdout


def test_a_parent_and_two_children_have_a_plane(folder, tmp_path):
    """The parent is the first corner; two tickets without it have none."""
    script("baselines_cifar.py", "--preset", "demo", "--epochs", 1, "--out", tmp_path / "parent")
    parent = tmp_path / "parent" / "tickets.safetensors"
    how = {
        "suite": "landscape",
        "plane": 2,
        "examples": 40,
        "figures": True,
        "out": tmp_path / "out",
    }
    (row,) = evaluated(folder, parent=parent, **how)["rows"]
    found = row["evaluation"]["parts"]["landscape"]
    assert (found["parent"], len(found["lines"]), len(found["plane"]["loss"])) == (True, 2, 2)
    test = jt.data.load("digits", "test").take(slice(40))
    tickets = jt.load(parent, jt.classification(jt.models.WideResNet(10, 1)))
    assert found["plane"]["corners"][0]["accuracy"] == jt.evaluate(tickets, test).ensemble.accuracy
    assert found["lines"][0]["loss"][0] == pytest.approx(found["plane"]["corners"][0]["loss"])
    for name in ("plane", "line"):
        assert (tmp_path / "out" / "edst" / f"{name}.png").is_file()
    (row,) = evaluated(folder, **how)["rows"]
    assert "plane" not in row["evaluation"]["parts"]["landscape"]
    with pytest.raises(ReportError, match="--plane and --parent are of --suite landscape"):
        evaluated(folder, plane=3, out=tmp_path / "out")


def test_correlations_by_method():
    """Two methods of three rows; a third has too few."""
    import evaluate

    def row(method, mean, ensemble):
        scores = {"members": [{}, {}], "members_mean": {"accuracy": mean}}
        return {"method": method, "evaluation": scores | {"ensemble": {"accuracy": ensemble}}}

    rows = [row("edst", m, e) for m, e in ((0.1, 0.2), (0.2, 0.1), (0.3, 0.3))]
    rows += [row("dst", m, m) for m in (0.1, 0.2, 0.3)] + [row("ltr", 0.5, 0.5)]
    found = evaluate.by_method(rows)
    assert {name: round(one["spearman"], 9) for name, one in found.items()} == {
        "edst": 0.5,
        "dst": 1.0,
    }


WRONG = {
    "nothing": (lambda run, npz: config(), r"nothing to evaluate"),
    "no file": (lambda run, npz: config("nowhere"), r"nowhere: there is no such file"),
    "no run": (lambda run, npz: config(run / "tickets"), r"no run folder"),
    "suite": (
        lambda run, npz: config(run, suite="clean,robust"),
        r"--suite: got 'robust'; parts are clean, corrupted",
    ),
    "no data set": (lambda run, npz: config(npz), r"--dataset: .* do not say"),
    "ood": (
        lambda run, npz: config(run, suite="ood", ood=("mnist",)),
        r"--ood: got 'mnist'; sets are svhn, noise, cifar10, cifar100",
    ),
    "published": (
        lambda run, npz: config(run, suite="corrupted", corrupted="published"),
        r"--corrupted published",
    ),
    "examples": (
        lambda run, npz: config(run, npz, examples=10),
        r"--examples 10: .* not together with stored predictions",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_evaluated(name, folder, predictions, tmp_path, monkeypatch):
    import evaluate

    monkeypatch.chdir(tmp_path)
    make, message = WRONG[name]
    with pytest.raises((ReportError, jt.DataError), match=message):
        evaluate.evaluate(dataclasses.replace(make(folder, predictions), out=tmp_path / "out"))
    assert not (tmp_path / "out" / "evaluation.json").exists()


def test_a_missing_set_says_how_to_go_without_it(folder, tmp_path):
    with pytest.raises(ReportError, match=r"(?s)svhn.*Or go without it: --ood noise"):
        evaluated(
            folder, suite="ood", ood=("svhn", "noise"), data_dir=tmp_path, out=tmp_path / "out"
        )


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"y": np.zeros(450, np.int32)},
            r"wanted one of log_proba, proba, predictions|wanted log_proba or proba or predictions",
        ),
        ({"proba": np.full((1, 450, 10), 0.1)}, r"has proba; wanted"),
        (
            {"proba": np.full((1, 450, 10), 0.1), "y": np.zeros(450, np.int32)},
            r"y is not that of the test set of digits, in its order",
        ),
        ({"proba": np.full((1, 450, 10), 0.2), "y": None}, r"sums to 2, wanted 1"),
        ({"proba": np.full((1, 449, 10), 0.1), "y": None}, r"449"),
        ({"proba": np.array([{}], object), "y": None}, r"no .npz of numbers"),
    ],
)
def test_predictions_that_do_not_fit(arrays, message, tmp_path):
    if "y" in arrays and arrays["y"] is None:
        arrays = arrays | {"y": jt.data.load("digits", "test").y}
    np.savez(tmp_path / "p.npz", **arrays)
    with pytest.raises(ReportError, match=message):
        evaluated(tmp_path / "p.npz", dataset="digits", out=tmp_path / "out")


def test_runs_of_different_data_do_not_stand_in_one_table(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for name in ("tickets.safetensors", "config.json"):
        (other / name).write_bytes((folder / name).read_bytes())
    results = json.loads((folder / "results.json").read_text()) | {"dataset": {"name": "cifar10"}}
    (other / "results.json").write_text(json.dumps(results))
    done = script("evaluate.py", folder, other, "--out", tmp_path / "out", status=2)
    assert "other is of cifar10, and not of digits" in done.stderr


def test_the_report_shows_it(all_of_it, folder, tmp_path):
    done = script(
        "report.py",
        folder,
        all_of_it[0] / "evaluation.json",
        "-o",
        tmp_path / "r.html",
        "--markdown",
        tmp_path / "r.md",
    )
    page = (tmp_path / "r.html").read_text()
    assert page.count("data:image/png") >= 9
    assert "Clean test set" in (tmp_path / "r.md").read_text()
    assert "1 run, 1 evaluation, " in done.stdout
