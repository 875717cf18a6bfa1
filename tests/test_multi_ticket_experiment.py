"""The Multi-Ticket experiment as its users meet it: five schemes in one command, resumed, compared, exported; and what it refuses."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from others import others

import jaxtickets as jt

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.usefixtures("programs_are_compiled_once")
QUICK = (
    "--pretrain-steps",
    "3",
    "--seeds",
    "2",
    "--sizes",
    "2",
    "--rounds",
    "1",
    "--epochs",
    "0.1",
    "--resamples",
    "50",
)


def run(*flags, status=0, **options):
    command = [sys.executable, str(ROOT / "experiments" / "multi_ticket_glue.py"), *map(str, flags)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=500, check=False, **options
    )
    assert done.returncode == status, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    return out, run(*QUICK, "--export", "--out", out)


def test_five_schemes_beside_each_other(demo):
    out, done = demo
    found = json.loads((out / "results.json").read_text())
    assert [row["scheme"] for row in found["rows"]] == [
        "baseline",
        "bagging",
        "base_lt",
        "active_lt",
        "random_lt",
    ]
    assert found["synthetic"] is True
    assert "synthetic" in done.stdout
    assert found["command"] == "python experiments/multi_ticket_glue.py " + " ".join(
        [*QUICK, "--export"]
    )
    for row in found["rows"]:
        stored = np.load(out / row["scheme"] / "predictions.npz", allow_pickle=False)
        probabilities, y = stored["predictions"], stored["y"]
        assert probabilities.shape == (2, 1000, 2)
        singles = (probabilities.argmax(-1) == y).mean(-1)
        ensemble = (probabilities.mean(0).argmax(-1) == y).mean()
        assert row["gain"]["single"] == pytest.approx(singles.mean())
        assert row["gain"]["ensemble"] == {"2": pytest.approx(ensemble)}
        assert f"{100 * singles.mean():.2f}" in done.stdout
        ticket = row["scheme"].endswith("_lt")
        assert row["densities"] == pytest.approx([0.7 if ticket else 1.0] * 2, abs=1e-4)
        assert (row["overlap"] is not None) == ticket
        assert row["bootstrap"].keys() == {"baseline", "base_lt"} - {row["scheme"]}
    for picture in ("gains.png", "overlaps.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
    assert (out / "tables.md").read_text().count("| RANDOM-LT |") == 2


def test_the_same_command_trains_nothing_again(demo):
    out, done = demo
    times = {path: path.stat().st_mtime_ns for path in out.rglob("tickets.safetensors")}
    again = run(*QUICK, "--export", "--out", out)
    assert len(times) == 6  # five schemes and the pretraining
    assert {path: path.stat().st_mtime_ns for path in out.rglob("tickets.safetensors")} == times
    assert again.stdout.splitlines()[-20:] == done.stdout.splitlines()[-20:]
    other = run(*QUICK, "--tau", "0.5", "--out", out, status=2)
    assert "RunError" in other.stderr


def test_tickets_of_units_stand_beside_those_of_connections(demo, tmp_path):
    out, _ = demo
    (tmp_path / "pretrained").symlink_to(out / "pretrained")
    done = run(
        *(*QUICK, "--scheme", "baseline", "base_lt", "--structure", "connections", "units"),
        *("--side-by-side", "1", "--out", tmp_path),
    )
    rows = {
        row["scheme"]: row for row in json.loads((tmp_path / "results.json").read_text())["rows"]
    }
    assert list(rows) == ["baseline", "base_lt", "base_lt_units"]
    assert "BASE-LT, units" in done.stdout
    masked, cut = rows["base_lt"], rows["base_lt_units"]
    assert masked["training_executed"] == pytest.approx(4)  # two trainings of two seeds, all dense
    # What is cut is not computed; widths are rounded up to multiples of 8.
    assert cut["training"] <= cut["training_executed"] < 1.05 * cut["training"]
    assert cut["training_executed"] < masked["training_executed"] - 0.3
    (pruned,) = (phase for phase in cut["plan"]["phases"] if phase["kind"] == "Prune")
    assert pruned["scores"] == "snip"  # of units, if nothing is said
    assert cut["overlap"] is None
    assert cut["bootstrap"].keys() == {"baseline", "base_lt"}
    assert "Shrink: 520 units to" in done.stderr
    assert "of one turn, each run at a 13th" in " ".join(done.stdout.split())
    assert all(row["seconds"] > 0 and row["predict"] > 0 for row in rows.values())


def test_exported_tickets_predict_the_same_in_torch(demo):
    transformers = others("transformers")
    torch = others("torch")
    out, _ = demo
    data = jt.data.paraphrases("validation")
    stored = np.load(out / "random_lt" / "predictions.npz", allow_pickle=False)["predictions"]
    for number in range(2):
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            out / "random_lt" / "tickets" / str(number)
        ).eval()
        with torch.no_grad():
            x = {name: torch.tensor(array[:50].astype(np.int64)) for name, array in data.x.items()}
            theirs = model(**x).logits.softmax(-1).numpy()
        np.testing.assert_allclose(stored[number, :50], theirs, atol=1e-5)  # float32, two libraries


def test_a_sweep_of_tau(demo, tmp_path):
    out, _ = demo
    (tmp_path / "pretrained").symlink_to(out / "pretrained")
    done = run(
        *QUICK, "--scheme", "random_lt", "--tau-sweep", "1.0", "--resamples", "0", "--out", tmp_path
    )
    points = json.loads((tmp_path / "tau.json").read_text())["points"]
    assert [point["tau"] for point in points] == [0.0, 1.0]
    assert "no penalty" in done.stdout
    assert "tau = 1" in done.stdout
    assert all(0 < point["mask_iou"] <= 1 for point in points)
    assert (
        points[1]["mask_iou"] != points[0]["mask_iou"]
    )  # (which is more says nothing after six steps)
    assert "mask" in done.stdout  # its heading may stand on two lines
    assert "IoU" in done.stdout


def test_some_schemes_stand_in_the_papers_order():
    done = run("--preset", "paper", "--cost", "--scheme", "random_lt", "baseline")
    assert re.findall(r"^(\w+): 20 tickets", done.stdout, re.MULTILINE) == ["baseline", "random_lt"]


def test_costs_are_said_first():
    done = run("--preset", "paper", "--cost")
    for scheme in ("baseline", "bagging", "base_lt", "active_lt", "random_lt"):
        assert f"{scheme}: 20 tickets" in done.stdout
    assert "theoretical" in done.stdout


def test_each_table_of_the_paper_has_a_preset():
    """Kobayashi et al., 2022, tables 1 and 3: BERT and RoBERTa, MRPC and STS-B, with a regression's network."""
    done = run("--preset", "paper_roberta_stsb", "--cost", "--scheme", "base_lt")
    assert "base_lt: 20 tickets" in done.stdout
    # 5749 examples in batches of 32: 179 steps an epoch, four trainings of three epochs, 20 seeds.
    assert "42,960" in done.stdout


def test_the_papers_settings_differ_in_task_and_model_alone(experiments_are_importable):
    import dataclasses

    from support.published import multi_ticket_gain
    from support.text_flags import PRESETS

    wanted = {
        "paper": ("mrpc", "bert-base-uncased", 84.98),
        "paper_stsb": ("stsb", "bert-base-uncased", 89.16),
        "paper_roberta": ("mrpc", "roberta-base", 88.25),
        "paper_roberta_stsb": ("stsb", "roberta-base", 90.07),
    }
    for name, (task, model, ensemble) in wanted.items():
        same = dataclasses.replace(PRESETS["paper"], preset=name, task=task, model=model)
        assert PRESETS[name] == same
        told = multi_ticket_gain("roberta" if "roberta" in model else "bert", task, "base_lt")
        assert told is not None
        assert told["ensemble"] == ensemble


def test_two_tasks_stand_beside_each_other_in_a_figure(tmp_path):
    from jaxtickets import report

    found = json.loads((ROOT / "experiments/results/multi-ticket-demo.json").read_text())
    other = found | {"dataset": found["dataset"] | {"name": "glue/stsb"}, "metric": "pearson"}
    picture = report.draw_gains([found, other], tmp_path / "gains.png")
    assert picture is not None
    assert picture.read_bytes().startswith(b"\x89PNG")
    lines = (tmp_path / "gains.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 5 * 3  # data sets, schemes, sizes 1, 2 and 3
    assert lines[-1].startswith("glue/stsb,pearson,RANDOM-LT,3,")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--beside", "."), "--beside .: no results.json of this script"),
        (("--groups", "2"), "3 seeds do not divide into 2 groups"),
        (("--sizes", "4"), "sizes of ensembles are from 2 to 3, the seeds of a group"),
        (("--tau-sweep", "0.1"), "--scheme random_lt or active_lt; got all"),
        (("--tau-sweep", "0.1", "--scheme", "base_lt", "random_lt"), "got base_lt random_lt"),
        (("--task", "mrpc"), "paraphrases is the demo's task"),
        (("--preset", "small", "--model", "nowhere/at/all"), "nowhere/at/all"),
        (("--sparsity", "1.5"), "in (0, 1); got 1.5"),
        (("--structure", "connections", "units"), "active_lt"),
        (
            ("--scheme", "random_lt", "--tau-sweep", "0.1", "--structure", "connections", "units"),
            "of one --structure",
        ),
    ],
)
def test_what_cannot_be_is_one_line(flags, message, tmp_path):
    done = run(*flags, "--out", tmp_path, status=2, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_mrpc_from_a_checkpoint_folder(tmp_path):
    """The real data and a BERT of random weights: the way that a pretrained one goes."""
    root = os.environ.get("JAXTICKETS_DATA")
    if root is None or not (Path(root) / "glue_data" / "MRPC").is_dir():
        pytest.skip("JAXTICKETS_DATA names no folder with glue_data/MRPC")
    sizes = jt.models.TransformerConfig(layers=1, width=16, heads=2, intermediate=32, positions=64)
    tokens = np.ones((1, 8), np.int32)
    classifier = jt.models.TextClassifier(sizes).init(
        jax.random.key(0), {"input_ids": tokens, "attention_mask": tokens}, train=False
    )
    jt.models.save_pretrained(
        {"encoder": classifier["params"]["encoder"]}, sizes, tmp_path / "model"
    )
    done = run(
        *("--preset", "small", "--scheme", "random_lt"),
        *(
            "--model",
            (tmp_path / "model").resolve(),
            "--tokenizer",
            (Path(root) / "bert_uncased_vocab.txt").resolve(),
        ),
        *(
            "--seeds",
            "2",
            "--sizes",
            "2",
            "--rounds",
            "1",
            "--epochs",
            "0.02",
            "--max-length",
            "64",
            "--out",
            tmp_path / "out",
        ),
        *("--data-dir", root),
    )
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    (row,) = found["rows"]
    assert (
        found["dataset"].items() > {"name": "glue/mrpc", "train": 3668, "validation": 408}.items()
    )
    assert re.fullmatch("[0-9a-f]{16}", found["dataset"]["test_fingerprint"])
    assert (
        "--model model --tokenizer bert_uncased_vocab.txt --seeds 2" in found["command"]
    )  # no folder of this machine
    assert row["published"] == {
        "single": 83.53,
        "ensemble": 85.05,
        "source": "Kobayashi et al. 2022, table 1, bert-base",
    }
    assert {"accuracy", "f1"} == row["scores"][0].keys()
    assert "83.53 / 85.05" in done.stdout
    assert (
        "paper: single / ensemble / difference of Kobayashi et al. 2022, table 1, bert-base."
        in " ".join(done.stdout.split())
    )
