"""Rows of our results in the form of the papers' tables.

Of runs, of comparisons, of schemes, of evaluations.
"""

from __future__ import annotations

import dataclasses
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxtickets.plan import Plan, Train
from jaxtickets.report.html.inputs import ReportInputs, Run, method_of, plan_of
from jaxtickets.report.records import Record

COMPARED = (
    *("accuracy", "nll", "ece", "training", "inference", "disagreement", "kl"),
    "members_accuracy",
)


@dataclasses.dataclass(frozen=True)
class OurRow:
    """A row of our results as a `PaperRow`: of one run, or the mean over several seeds."""

    title: str
    method: str
    network: str
    dataset: str
    scores: Mapping[str, float]
    members: int | None = None
    sparsity: float | None = None
    epochs: float | None = None
    runs: int = 1
    reference: float | None = None
    """Epochs of the dense run that the score "training" is a multiple of."""


def network_of(model: str) -> str:
    """The network as the papers name it, whatever wraps it.

    >>> network_of("MIMO(WideResNet(28, 10), 3)"), network_of("LeNet(L, initial=torch)")
    ('WRN-28-10', 'LeNet-L')
    >>> network_of("fine_tuning(google-bert/bert-base-uncased, 2)")
    'bert-base'
    >>> network_of("fine_tuning(distilbert-base, 2)")
    'distilbert-base'
    """
    sized = re.search(r"(WideResNet|ResNet|DenseNet|LeNet)\(([^()]*)\)", model)
    if sized:
        sizes = [word.strip() for word in sized[2].split(",") if "=" not in word]
        return "-".join([sized[1].replace("WideResNet", "WRN"), *sizes])
    tuned = re.match(r"fine_tuning\((?:[^,()/]*/)*((?:roberta|bert)-(?:base|large)|[^,()]+)", model)
    return tuned[1] if tuned else model


def our_rows(inputs: ReportInputs) -> list[OurRow]:
    """Our rows to compare with the papers': seeds as their mean, comparisons, schemes, ..."""
    groups: dict[tuple[object, ...], list[tuple[Run, Mapping[str, float]]]] = {}
    used_rows: set[int] = set()
    for run in inputs.runs:
        if run.results is None:
            continue
        scores = _scores_of(run.results, run.plan)
        for row in _evaluated(inputs):
            # of a part there is no paper
            all_of_it = row.part("evaluation").number("examples") == run.results.number("examples")
            if all_of_it and not row.flag("part") and _is_of(row, run):
                scores |= evaluated_scores(row.part("evaluation"))
                used_rows.add(id(row.data))
        key = (run.method, run.model, run.dataset, len(run.results.parts("members")), run.plan)
        groups.setdefault(key, []).append((run, scores))
    rows = [_mean(seeds) for seeds in groups.values()]
    for row in _evaluated(inputs):
        if id(row.data) not in used_rows:
            test = next(
                record.part("test") for record in inputs.evaluations if record.file == row.file
            )
            rows.append(_evaluated_row(row, test))
    for record in inputs.comparisons:
        rows += [row for row in _compared(record) if not any(_same(row, other) for other in rows)]
    for record in inputs.schemes:
        rows += _schemes(record)
    for record in inputs.sweeps:
        rows += _swept(record)
    return rows


def evaluated_scores(evaluation: Record) -> dict[str, float]:
    """Scores of an evaluation by the names of `SCORES`."""
    scores: dict[str, float | None] = {
        name: evaluation.part("ensemble").number(name) for name in ("accuracy", "nll", "ece")
    }
    parts = evaluation.maybe("parts")
    diversity = parts.maybe("diversity") if parts else None
    diversity = diversity or evaluation.maybe("diversity")
    if diversity is not None:
        scores |= {name: diversity.number(name) for name in ("disagreement", "kl")}
        scores |= {
            f"class_{i}": value
            for i, value in enumerate(diversity.numbers("class_disagreement")[:10])
        }
    corrupted = parts.maybe("corrupted") if parts else None
    # the papers' are the published sets
    if corrupted is not None and not corrupted.flag("generated"):
        mean = corrupted.part("mean")
        scores |= {f"corrupted_{name}": mean.number(name) for name in ("accuracy", "nll", "ece")}
    shifted = parts.maybe("shifted") if parts else None
    if shifted is not None:
        for name in shifted.data:
            ensemble = shifted.part(name).part("ensemble")
            scores |= {f"{name}_{it}": ensemble.number(it) for it in ("accuracy", "nll", "ece")}
    ood = parts.maybe("ood") if parts else None
    for name in ood.data if ood is not None else ():
        scores["ood_" + re.sub("[^a-z0-9]", "", name.lower())] = (
            ood.part(name).number("max_probability") if ood else None
        )
    adversarial = parts.maybe("adversarial") if parts else None
    if (
        adversarial is not None
        and adversarial.text("attack", "") == "fgsm"
        and abs((adversarial.number("step") or 0) - 8 / 255) < 1e-6
    ):
        scores |= {f"fgsm_{name}": adversarial.number(name) for name in ("min", "mean", "max")}
    return {name: value for name, value in scores.items() if value is not None}


def _scores_of(results: Record, plan: Plan | None) -> dict[str, float]:
    scores = {name: results.part("ensemble").number(name) for name in ("accuracy", "nll", "ece")}
    scores |= {name: results.part("diversity").number(name) for name in ("disagreement", "kl")}
    scores |= {name: results.part("cost").number(name) for name in ("training", "inference")}
    if len(results.parts("members")) > 1:
        scores["members_accuracy"] = results.part("members_mean").number("accuracy")
    if plan is not None:
        scores["training_runs"] = plan.training_runs
    if (imagenet_a := results.maybe("imagenet_a")) is not None:
        ensemble = imagenet_a.part("ensemble")
        scores |= {f"imagenet_a_{it}": ensemble.number(it) for it in ("accuracy", "nll", "ece")}
    return {name: value for name, value in scores.items() if value is not None}


def _mean(seeds: Sequence[tuple[Run, Mapping[str, float]]]) -> OurRow:
    """The row of runs that differ only in their seed."""
    run = seeds[0][0]
    assert run.results is not None
    names = [name for name in seeds[0][1] if all(name in scores for _, scores in seeds)]
    scores = {name: statistics.fmean(scores[name] for _, scores in seeds) for name in names}
    density = run.results.part("cost").number("density")
    epochs = _epochs(run.plan)
    title = run.name if len(seeds) == 1 else run.method
    return OurRow(
        title,
        run.method,
        network_of(run.model),
        run.dataset,
        scores,
        members=len(run.results.parts("members")),
        sparsity=None if density is None else 1 - density,
        epochs=epochs,
        runs=len(seeds),
        reference=_reference(run.results, run.plan),
    )


def _reference(results: Record, plan: Plan | None) -> float | None:
    """Epochs of the dense run that a run's cost is a multiple of; None where unknown."""
    dense = results.part("cost").maybe("reference")
    if dense is not None:
        return _epochs_in(dense.text("length"))
    return (
        plan.reference.amount
        if plan is not None and plan.reference is not None and plan.reference.unit == "epochs"
        else None
    )


def _epochs_in(length: str) -> float | None:
    """The epochs in a length as text; None where it counts in steps.

    >>> _epochs_in("250 epochs"), _epochs_in("90 steps")
    (250.0, None)
    """
    epochs = re.fullmatch(r"([0-9.e+]+) epochs?", length)
    return float(epochs[1]) if epochs else None


def _epochs(plan: Plan | None) -> float | None:
    """Epochs of all networks of a plan together; None where it counts in steps."""
    lengths = (
        [phase.length for phase in plan.phases if isinstance(phase, Train)]
        if plan is not None
        else []
    )
    return (
        plan.width * plan.epochs(1)
        if plan is not None and all(length.unit == "epochs" for length in lengths)
        else None
    )


def _evaluated_row(row: Record, test: Record) -> OurRow:
    """A row of an evaluation whose run is not reported itself."""
    run, model = row.maybe("run"), row.text("model")
    told = row if run is None else run
    plan = plan_of(told) if "plan" in told else None
    density = row.number("density")
    if run is not None and "cost" in run:
        density = run.part("cost").number("density")
    method = method_of(plan, model) if plan is not None else row.text("method", "unknown")
    scores, sparsity = (
        evaluated_scores(row.part("evaluation")),
        None if density is None else 1 - density,
    )
    title, network = row.text("name"), network_of(model)
    return OurRow(
        title,
        method,
        network,
        test.text("name"),
        scores,
        row.count("tickets"),
        sparsity,
        _epochs(plan),
    )


def _evaluated(inputs: ReportInputs) -> list[Record]:
    return [row for record in inputs.evaluations for row in record.parts("rows")]


def _is_of(row: Record, run: Run) -> bool:
    """Whether an evaluation's row is of that run: its source is the folder or a file in it."""
    source, folder = Path(row.text("source", "")), run.source.resolve()
    for place in ((Path() / source).resolve(), (row.file.parent / source).resolve()):
        if folder in (place, place.parent):
            return True
    # written elsewhere, moved together
    beside = row.file.resolve().parent in (folder, folder.parent)
    return beside and folder.name in (source.name, source.parent.name)


def _compared(record: Record) -> list[OurRow]:
    network, dataset = network_of(record.text("network")), record.part("dataset").text("name")
    unit = record.maybe("reference")
    reference = None if unit is None else _epochs_in(unit.text("length"))
    rows = []
    for row in record.parts("rows"):
        scores = {
            name: part.number("mean")
            for name in COMPARED
            if (part := row.part("scores").maybe(name)) is not None
        }
        scores["training_runs"] = row.number("training_runs")
        known_scores = {name: value for name, value in scores.items() if value is not None}
        density = row.number("density")
        sparsity = None if density is None else 1 - density
        runs = len(row.numbers("seeds")) or 1
        epochs = _epochs(plan_of(row)) if "plan" in row else None
        title, members = row.text("title"), row.count("members")
        method = row.text("paper_method", row.text("method"))
        rows.append(
            OurRow(
                title,
                method,
                network,
                dataset,
                known_scores,
                members,
                sparsity,
                epochs,
                runs,
                reference,
            )
        )
    return rows


def _same(row: OurRow, other: OurRow) -> bool:
    return (row.method, row.network, row.dataset, row.members) == (
        other.method,
        other.network,
        other.dataset,
        other.members,
    )


def _swept(record: Record) -> list[OurRow]:
    """Points of a sweep that a paper has, and correlations over them."""
    rows, dataset = [], record.part("dataset").text("name")
    runs = len(record.numbers("seeds")) or 1
    points = [point for point in record.parts("points") if point.text("paper_method", "")]
    names = ("accuracy", "nll", "ece", "members_accuracy", "disagreement", "kl")
    for point in points:
        scores = {name: point.number(name) for name in names}
        density = point.number("density")
        rows.append(
            OurRow(
                f"{point.text('series')}, {place_on_axis(point)}",
                point.text("paper_method"),
                network_of(point.text("model")),
                dataset,
                {name: value for name, value in scores.items() if value is not None},
                members=point.count("members"),
                sparsity=None if density is None else 1 - density,
                epochs=_epochs(plan_of(point)) if "plan" in point else None,
                runs=runs,
            )
        )
    models = [point.text("model") for point in record.parts("points") if "model" in point]
    for correlation in record.parts("correlations"):
        if not correlation.text("paper_method", "") or not models:
            continue
        coefficients = {
            f"accuracy_{name}": correlation.number(name) for name in ("pearson", "spearman")
        }
        known_scores = {name: value for name, value in coefficients.items() if value is not None}
        method, network = correlation.text("paper_method"), network_of(models[0])
        rows.append(
            OurRow(correlation.text("series"), method, network, dataset, known_scores, runs=runs)
        )
    return rows


def place_on_axis(point: Record) -> str:
    """Where a point of a sweep stands on its axis: a number, or a name."""
    if isinstance(point.data.get("x"), str):
        return point.text("x")
    number = point.number("x")
    return "" if number is None else f"{number:g}"


def _schemes(record: Record) -> list[OurRow]:
    network, dataset = (
        network_of(record.text("network")),
        record.part("dataset").text("name").removeprefix("glue/"),
    )
    rows = []
    for row in record.parts("rows"):
        single, size = row.part("gain").number("single"), str(record.count("size"))
        ensemble = row.part("gain").part("ensemble").number(size)
        scores: dict[str, float | None] = {"single": single, "ensemble": ensemble}
        if single is not None and ensemble is not None:
            scores["difference"] = ensemble - single
        oracle = row.maybe("oracle")
        if oracle is not None:
            scores |= {
                name: oracle.number(name)
                for name in ("q", "ratio_errors", "negative_double_fault", "correlation")
            }
            scores["oracle_disagreement"] = oracle.number("disagreement")
        known_scores = {name: value for name, value in scores.items() if value is not None}
        densities = [density for density in row.numbers("densities") if density is not None]
        sparsity = 1 - statistics.fmean(densities) if densities else None
        plan = plan_of(row) if "plan" in row else None
        trained = _epochs(plan)
        epochs = None if plan is None or trained is None else trained / plan.width * int(size)
        rows.append(
            OurRow(
                row.text("title"),
                row.text("scheme"),
                network,
                dataset,
                known_scores,
                int(size),
                sparsity,
                epochs,
            )
        )
    return rows
