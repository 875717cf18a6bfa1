"""Comparisons and sweeps: every plan of every preset is what it says, and a run of each leaves what its README says."""

import csv
import dataclasses
import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

import jaxtickets as jt
from jaxtickets.plan import Adam, Collect, Evolve, Fork, Train
from jaxtickets.schedules import Constant

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.usefixtures("programs_are_compiled_once", "experiments_are_importable")


def run(script, *flags, status=0):
    command = [sys.executable, str(ROOT / "experiments" / script), *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == status, done.stderr[-3000:]
    return done


def flops_of(config):
    from support import cifar

    ledger = jt.cost(config.plan(), cifar.make_task(config), cifar.blank(config.dataset))
    return sum(phase.flops for phase in ledger.phases)


def test_no_method_on_digits_costs_more_than_the_budget():
    import compare_cifar

    config = compare_cifar.Config(preset="digits")
    methods = compare_cifar.PRESETS["digits"].methods
    dense = flops_of(config.experiment("independent", 0))
    others = {"edst_m7", "edst_channels", "pat_units"}  # rows of other presets
    assert set(methods) == set(compare_cifar.TITLES) - others
    for name in methods:
        # Masks and branches cannot be cut to fit exactly: a hundredth over is the rounding of layer sizes.
        assert 0.4 < flops_of(config.experiment(name, 0)) / dense < 1.01, name


def test_table_1_is_trained_as_the_paper_says():
    """Adam at .001 throughout, batch 128, no augmentation, 16 epochs in all: 8 + 8 x 1, 8 x 2 or 16."""
    import compare_cifar
    from support import cifar

    how = {"lr": Constant(0.001), "optimizer": Adam(), "batch_size": 128}
    wanted = {
        "independent": (jt.dense(1, 16, **how), "LeNet(L, initial=torch)"),
        "dropout": (jt.dense(1, 16, **how), "LeNet(L, dropout=0.5, initial=torch)"),
        "bagged": (jt.bagged(8, 2, bag=0.9, **how), "LeNet(L, initial=torch)"),
        "pat_r": (
            jt.prune_and_tune(8, 8, 1, masks="random", sparsity=0.5, tune_lr="constant", **how),
            "LeNet(L, initial=torch)",
        ),
        "pat_ar": (
            jt.prune_and_tune(8, 8, 1, masks="anti_random", tune_lr="constant", **how),
            "LeNet(L, initial=torch)",
        ),
    }
    config = compare_cifar.Config(preset="table1")
    assert set(compare_cifar.PRESETS["table1"].methods) == set(wanted)
    for name, (plan, network) in wanted.items():
        experiment = config.experiment(name, 3)
        assert (experiment.plan(), cifar.make_task(experiment).name) == (plan, network)
        assert plan.epochs() * plan.width == 16
        assert (experiment.augment, experiment.seed) == (False, 3)
    resnet = dataclasses.replace(config, model="resnet", dataset="cifar100").experiment("pat_ar", 0)
    assert cifar.make_task(resnet).name.startswith("ResNet(18")
    assert cifar.make_task(resnet).num_classes == 100


@pytest.mark.parametrize("preset", ["small", "smaller", "paper"])
def test_every_method_of_a_preset_has_a_plan_and_a_network(preset):
    import compare_cifar
    from support import cifar

    config = compare_cifar.Config(preset=preset)
    for name in compare_cifar.PRESETS[preset].methods:
        experiment = config.experiment(name, 0)
        task = cifar.make_task(experiment)
        assert experiment.plan().members * task.heads >= 1
        assert (experiment.plan().members * task.heads > 1) == (
            name not in ("independent", "dropout")
        )
        told = compare_cifar.printed(
            config, name, "cifar10", "WideResNet(28, 10)", experiment.plan().members * task.heads
        )
        assert (told is None) == (
            preset != "paper" or name in ("dropout", "bagged", "pat_r", "pat_partition")
        )


def test_the_papers_costs_stand_beside_ours():
    """Liu et al., 2021, tables 1 and 6, printed in its unit; Whitaker and Whitley's .85 of 200 epochs are .68 of 250."""
    done = run("compare_cifar.py", "--preset", "paper", "--cost")
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if "  paper " in line}
    for name, told in {
        "edst": "0.61x in  1   paper 0.61x in 1",
        "edst_m7": "0.57x in  1   paper 0.57x in 1",
        "treenet": "1.54x in  1   paper 1.52x in 1.5",
        "batch_ensemble": "4.00x in  1   paper 1.10x in 4",
        "mimo": "4.00x in  1   paper 1.00x in 1",
        "ltr": "0.96x in  4   paper 1.75x in 4",
        "prune_finetune": "3.60x in  6   paper 3.75x in 6",
        "dense_ensemble": "4.00x in  4   paper 4.00x in 4",
        "pat_ar": "0.68x in  7   paper 0.68x",
    }.items():
        assert told in lines[name], name
    text = " ".join(done.stdout.split())
    for reason in ("MIMO: the paper leaves out", "LTR ensemble: the paper does not tell"):
        assert reason in text


def test_table_6_is_a_preset():
    import compare_cifar
    from support.published import published

    assert set(compare_cifar.PRESETS["table6"].methods) == {
        "snapshot",
        "fge",
        "edst_m7",
        "edst",
        "dst",
    }
    told = published("table6", "cifar100", "WideResNet(28, 10)", "edst", 7)
    assert (told.accuracy, told.training, told.source) == (82.6, 0.57, "Liu et al. 2022, table 6")
    assert published("table6", "cifar100", "WideResNet(28, 10)", "mimo", 3) is None


def test_methods_are_tested_over_their_seeds():
    """Two-sided, of equal variances: scipy's own numbers."""
    import compare_cifar
    from scipy import stats

    rows = [
        {"method": "pat_ar", "accuracies": [0.757, 0.758, 0.756]},
        {"method": "bagged", "accuracies": [0.70, 0.71, 0.72]},
        {"method": "alone", "accuracies": [0.5]},
    ]
    compare_cifar.add_tests(rows, ("pat_ar", "absent"))
    wanted = stats.ttest_ind(rows[1]["accuracies"], rows[0]["accuracies"]).pvalue
    assert [row["tests"] for row in rows] == [{}, {"pat_ar": pytest.approx(wanted)}, {}]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--against", "rigl", "--seeds", 0, 1), ("PlanError", "--against", "rigl", "edst")),
        (("--against", "edst"), ("PlanError", "--against", "--seeds 0 1 2")),
    ],
)
def test_what_cannot_be_tested_is_one_line(flags, words, tmp_path):
    done = run("compare_cifar.py", *flags, "--out", tmp_path / "none", status=2)
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("preset", ["demo", "small", "paper"])
def test_every_point_of_every_sweep_has_a_plan(preset):
    from support import cifar
    from support.sweeps import SCALES, SWEEPS

    for name, sweep in SWEEPS.items():
        points = sweep.points(SCALES[preset])
        assert len({(point.series, point.x) for point in points}) == len(points), name
        for point in points:
            cifar.make_task(point.experiment)
            assert point.plan().members == point.first or point.first is None
        # Points of one folder are views of one run.
        for folder in {point.run for point in points}:
            assert (
                len(
                    {
                        point.change(point.experiment.plan())
                        for point in points
                        if point.run == folder
                    }
                )
                == 1
            )


def test_sweeps_change_what_they_say():
    from support.sweeps import SCALES, SWEEPS

    paper = SCALES["paper"]

    def plans(name):
        return {(p.series, p.x): p.plan() for p in SWEEPS[name].points(paper)}

    forks = [
        next(p for p in plan.phases if isinstance(p, Fork)) for plan in plans("sparsity").values()
    ]
    assert {fork.sparsity for fork in forks} == {n / 10 for n in range(1, 10)}
    assert {(fork.scope, fork.masks, fork.unit) for fork in forks} == {
        ("global", "random", "connection")
    }
    assert {size for _, size in plans("ensemble_size")} == {4, 8, 16, 32, 64, 128}
    still = plans("exploration")["EDST", "without"]
    assert not any(isinstance(p, Train) and isinstance(p.evolve, Evolve) for p in still.phases)
    assert {type(p).__name__ for p in still.phases} == {"Start", "Train", "Collect"}
    # EDST at one total time: 150 epochs of exploration and 300 of refinement, however many tickets.
    for (series, members), plan in plans("members").items():
        assert sum(isinstance(p, Collect) for p in plan.phases) * plan.width == members
        assert plan.epochs() * plan.width == pytest.approx(
            450 if series.startswith("EDST") else 250 * members
        )
    scopes = {
        series: next(p for p in plan.phases if isinstance(p, Fork)).scope
        for (series, _), plan in plans("scope").items()
    }
    assert scopes == {"layerwise": "layerwise", "global": "global"}
    for (_, share), plan in plans("bagging").items():
        parent, tuning = (phase for phase in plan.phases if isinstance(phase, Train))
        assert (parent.bag, tuning.bag) == (1, share)
    constant = plans("masks_and_schedule")["two children", "R, constant"]
    assert [p.lr for p in constant.phases if isinstance(p, Train)][1] == Constant(0.01)


def test_shorter_divides_every_length_and_leaves_the_rest():
    import compare_cifar
    from support import cifar

    whole = compare_cifar.Config(preset="smaller")
    short = dataclasses.replace(whole, shorter=4.0)
    edst, quarter = (config.experiment("edst_channels", 0) for config in (whole, short))
    assert quarter == dataclasses.replace(edst, explore=1, refine=0.375, update_every=25)
    pat, quarter = (config.experiment("pat_units", 0) for config in (whole, short))
    assert quarter == dataclasses.replace(pat, parent_epochs=1, tune_epochs=0.125)
    # a length that is not given stays so
    assert cifar.shortened(edst, 1e9).update_every == 1


def test_masked_rows_and_cut_ones_differ_in_that_alone():
    import compare_cifar

    config = compare_cifar.Config(preset="smaller")
    edst, channels, pat, units = (
        config.experiment(name, 0) for name in ("edst", "edst_channels", "pat_ar", "pat_units")
    )
    assert dataclasses.replace(channels, channels=0.0) == edst
    assert dataclasses.replace(units, unit="connection") == pat


@pytest.mark.slow
def test_seconds_side_by_side(tmp_path):
    flags = (
        "--preset",
        "digits",
        "--methods",
        "independent",
        "pat_ar",
        "--seeds",
        0,
        "--shorter",
        12,
    )
    run("compare_cifar.py", *flags, "--side-by-side", 1, "--out", tmp_path)
    found = json.loads((tmp_path / "results.json").read_text())
    assert "of one turn" in found["timing"]
    for row in found["rows"]:
        assert row["scores"]["seconds"]["mean"] > 0
        assert row["scores"]["predict"]["mean"] > 0
    header = (tmp_path / "comparison.csv").read_text().splitlines()[0]
    assert "training (seconds)" in header


def test_a_comparison_resumes_and_leaves_its_table_and_figure(tmp_path):
    flags = (
        "--preset",
        "digits",
        "--methods",
        "pat_ar",
        "pat_partition",
        "--seeds",
        0,
        "--out",
        tmp_path,
    )
    done = run("compare_cifar.py", *flags)
    found = json.loads((tmp_path / "results.json").read_text())
    assert [row["method"] for row in found["rows"]] == ["pat_ar", "pat_partition"]
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    alone = json.loads((tmp_path / "pat_ar-seed0" / "results.json").read_text())
    pat, part = found["rows"]
    assert pat["scores"]["accuracy"] == {
        "mean": alone["ensemble"]["accuracy"],
        "standard_error": None,
    }
    # 16 epochs of the parent and 4 x 2 of children at half and at a quarter of the weights, but for the classifier's.
    assert pat["scores"]["training"]["mean"] == pytest.approx((16 + 8 / 2) / 24, abs=0.002)
    assert part["scores"]["training"]["mean"] == pytest.approx((16 + 8 / 4) / 24, abs=0.002)
    assert alone["diversity"]["mask_iou"] == pytest.approx(
        0.23, abs=0.02
    )  # pairs share nothing, others a third
    for word in ("Prune and Tune (AR) (M=4)", "Prune and Tune (partition) (M=4)", "theoretical"):
        assert word in done.stdout
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    again = run("compare_cifar.py", *flags[:2], "--methods", "pat_ar", *flags[5:])
    assert "steps" not in again.stderr  # no training step was taken
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_points_that_a_paper_has_say_so():
    """Liu et al., 2021, tables 5, 9 and 10, and the correlations of table 8."""
    from support.published import swept
    from support.sweeps import SCALES, SWEEPS

    def accuracies(name, dataset="cifar100"):
        points = SWEEPS[name].points(SCALES["paper"])
        network = "WideResNet(28, 10)"
        return {
            (p.series, p.x): swept(dataset, network, p.paper_method, "accuracy") for p in points
        }

    assert accuracies("q") == pytest.approx(
        {("EDST", 0.1): 0.8214, ("EDST", 0.5): 0.8234, ("EDST", 0.8): 0.822}
    )
    assert accuracies("growth")["EDST", "random"] == pytest.approx(0.824)
    assert accuracies("growth")["DST", "random"] is None
    assert accuracies("exploration", "cifar10") == pytest.approx(
        {
            ("EDST", "without"): 0.96,
            ("EDST", "with exploration"): 0.963,
            ("DST", "without"): 0.96,
            ("DST", "with exploration"): 0.963,
        }
    )
    name = SWEEPS["ticket_sparsity"].correlated["EDST"]
    assert swept("cifar100", "WideResNet(28, 10)", name, "accuracy_spearman") == 0.829
    assert swept("cifar10", "LeNet(M)", "edst_q0.1", "accuracy") is None


def test_correlations_are_of_series_of_three_points():
    """Members 1, 2, 3 and ensembles 2, 1, 3: Spearman 1 - 6 x 2 / 24 = .5 by hand."""
    import ablations_cifar

    rows = [
        {"series": series, "members_accuracy": 0.1 * m, "accuracy": 0.1 * a}
        for series, pairs in (("EDST", ((1, 2), (2, 1), (3, 3))), ("DST", ((1, 1), (2, 2))))
        for m, a in pairs
    ]
    (found,) = ablations_cifar.correlations(rows, {"EDST": "edst_sparsities"})
    assert (found["series"], found["paper_method"], found["runs"]) == ("EDST", "edst_sparsities", 3)
    assert found["spearman"] == pytest.approx(0.5)


def test_a_sweep_shares_its_parent_and_counts_prefixes(tmp_path):
    import numpy as np

    flags = ("--preset", "demo", "--sweep", "ensemble_size", "--out", tmp_path)
    run("ablations_cifar.py", *flags)
    found = json.loads((tmp_path / "results.json").read_text())
    with (tmp_path / "points.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["accuracy"]) for row in rows] == [
        point["accuracy"] for point in found["points"]
    ]
    assert [point["x"] for point in found["points"]] == [2, 4, 8, 16]
    assert sorted(folder.name for folder in tmp_path.iterdir() if folder.is_dir()) == [
        "crowd-16-seed0",
        "parent-WideResNet(10,1)-seed0",
    ]
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    tickets = jt.load(
        tmp_path / "crowd-16-seed0" / "tickets.safetensors",
        jt.classification(jt.models.WideResNet(10, 1)),
    )
    _, test = jt.data.pair("digits")
    for point in found["points"][:2]:
        right = np.mean(tickets[: point["x"]].predict(test) == test.y)
        assert point["accuracy"] == pytest.approx(right, abs=1e-12)
    # The children's run has no training of a parent, and says whose network it began with.
    made = json.loads((tmp_path / "crowd-16-seed0" / "config.json").read_text())["run"]
    assert [phase["kind"] for phase in made["plan"]["phases"]] == [
        "Start",
        "Fork",
        "Train",
        "Collect",
    ]
    assert "start_from" in made
    assert "steps" not in run("ablations_cifar.py", *flags).stderr


def test_an_unknown_method_is_one_line(tmp_path):
    done = run("compare_cifar.py", "--methods", "rigl", "--out", tmp_path / "none", status=2)
    for word in ("PlanError", "rigl", "pat_ar", "edst"):
        assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "none").exists()


def scored(accuracy, **more):
    return {
        "ensemble": {"accuracy": accuracy, "nll": 0.5, "ece": 0.02},
        "members_mean": {"accuracy": accuracy - 0.02, "nll": 0.6},
        "diversity": {"disagreement": 0.1, "kl": None},
        "cost": {"phases": [{"flops": 1e9}, {"flops": 5e8}], "inference": 4.0},
        "seconds": {"train": 12.0, "total": 15.0},
        **more,
    }


@pytest.fixture
def comparison():
    from jaxtickets import report

    rows = [
        {
            "method": "pat_ar",
            "title": "Prune and Tune (AR)",
            "members": 8,
            "scores": report.summary([scored(0.9), scored(0.92)], 2e9),
        },
        {
            "method": "independent",
            "title": "Independent",
            "members": 1,
            "scores": report.summary([scored(0.88)], 2e9),
        },
    ]
    told = {
        "accuracy": 75.75,
        "source": "A paper, table 1",
        "standard_error": 0.06,
        "nll": None,
        "ece": None,
    }
    rows = [row | {"published": told if row["members"] == 8 else None} for row in rows]
    return {
        "rows": rows,
        "budget": "Budget: little.",
        "seeds": [0, 1],
        "network": "LeNet(L, initial=torch)",
        "dataset": {"name": "cifar10"},
    }


def test_means_and_standard_errors_by_hand(comparison):
    scores = comparison["rows"][0]["scores"]
    # Of .90 and .92: mean .91, sample deviation .02 / sqrt 2, over sqrt 2 runs: .01.
    assert scores["accuracy"]["mean"] == pytest.approx(0.91)
    assert scores["accuracy"]["standard_error"] == pytest.approx(0.01)
    assert scores["training"]["mean"] == 0.75
    assert scores["kl"] is None
    assert comparison["rows"][1]["scores"]["accuracy"]["standard_error"] is None


def test_comparisons_as_text(comparison):
    from rich.console import Console

    from jaxtickets import report

    console = Console(width=120, no_color=True)
    with console.capture() as captured:
        console.print(report.comparison_table(comparison))
    text = captured.get()
    assert "…" not in text
    for word in (
        "91.00 ± 1.00",
        "75.75 ± 0.06",
        "A paper, table 1",
        "Budget: little.",
        "0.75x",
        "theoretical",
        "2 runs",
    ):
        assert word in text
    table = report.markdown_table(report.comparison_table(comparison), notes=False).splitlines()
    assert len({line.count("|") for line in table}) == 1
    assert "**91.00 ± 1.00**" in table[2]
    assert "88.00" in table[3]
    assert "**88.00**" not in table[3]
    tested = comparison["rows"][1] | {"tests": {"pat_ar": 0.0421}, "training_runs": 1}
    rows = [comparison["rows"][0], tested]
    table = report.markdown_table(report.comparison_table(comparison | {"rows": rows}))
    assert "| runs |" in table.splitlines()[0]
    assert table.splitlines()[0].endswith("| p: pat\\_ar |")
    assert table.splitlines()[3].endswith("| .042 |")
    assert "Student's t-test" in table


def test_figures_do_not_overlap_their_labels(comparison, tmp_path):
    from jaxtickets import report
    from jaxtickets.report.figures import _spread

    rows = comparison["rows"] * 8
    assert (
        report.draw_comparison(comparison | {"rows": rows}, tmp_path / "many.png").stat().st_size
        > 10_000
    )
    heights = _spread([5.0] * 10 + [9.0], high=9.5, gap=0.5)
    assert all(b - a >= 0.5 - 1e-9 for a, b in itertools.pairwise(heights))
    assert max(heights) <= 9.5
    assert not any(math.isnan(height) for height in heights)


def test_a_figure_against_seconds_needs_seconds(comparison, tmp_path):
    from jaxtickets import report
    from jaxtickets.errors import ReportError

    report.draw_comparison(comparison, tmp_path / "seconds.png", against="seconds")
    lines = (tmp_path / "seconds.csv").read_text().splitlines()
    assert "training (seconds)" in lines[0]
    assert ",12.0," in lines[1]
    with pytest.raises(ReportError, match=r"got 'time', wanted one of 'training'"):
        report.draw_comparison(comparison, tmp_path / "x.png", against="time")
    with pytest.raises(ReportError, match=r"Prune and Tune \(AR\) does not tell"):
        report.draw_comparison(comparison, tmp_path / "x.png", against="training_executed")


def test_other_data_and_other_networks_have_a_folder_of_their_own():
    import compare_cifar

    others = (
        {"dataset": "cifar100"},
        {"model": "resnet"},
        {"dataset": "cifar100", "model": "resnet"},
        {"depth": 16},
        {"width": 2},
        {"batch_size": 32},
        {"initial": "lecun"},
        {"shorter": 2.5},
    )
    folders = [compare_cifar.default_folder(compare_cifar.Config(**each)) for each in others]
    plain = compare_cifar.default_folder(compare_cifar.Config(seeds=(1, 2), methods=("edst",)))
    assert plain == "runs/compare-digits"
    assert len({plain, *folders}) == 1 + len(others)
