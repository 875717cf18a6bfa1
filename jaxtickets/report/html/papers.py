"""Ours beside the papers': a row of ours, a row of theirs, and the difference where both are of one thing."""

from __future__ import annotations

import dataclasses
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from jaxtickets.report.html.files import Record, shown
from jaxtickets.report.html.found import Found, Run
from jaxtickets.report.html.parts import PAPERS, Section, Sources, Table, Text

# Score as both sides name it: heading, factor, digits. In the order of the columns.
SCORES: Mapping[str, tuple[str, float, int]] = {
    "accuracy": ("acc %", 100, 2),
    "nll": ("NLL", 1, 3),
    "ece": ("ECE %", 100, 1),
    "corrupted_accuracy": ("cAcc %", 100, 1),
    "corrupted_nll": ("cNLL", 1, 3),
    "corrupted_ece": ("cECE %", 100, 1),
    "training": ("training FLOPs, x", 1, 2),
    "disagreement": ("disagreement", 1, 3),
    "kl": ("KL", 1, 3),
    "ood_svhn": ("OoD SVHN", 1, 4),
    "ood_cifar10": ("OoD CIFAR-10", 1, 4),
    "ood_cifar100": ("OoD CIFAR-100", 1, 4),
    "ood_gaussiannoise": ("OoD noise", 1, 4),
    "fgsm_min": ("FGSM min %", 100, 2),
    "fgsm_mean": ("FGSM mean %", 100, 2),
    "fgsm_max": ("FGSM max %", 100, 2),
    "single": ("single %", 100, 2),
    "ensemble": ("ensemble %", 100, 2),
    "difference": ("diff. %", 100, 2),
    "q": ("Q", 1, 2),
    "ratio_errors": ("R", 1, 2),
    "negative_double_fault": ("ND", 1, 2),
    "oracle_disagreement": ("D", 1, 2),
    "correlation": ("C", 1, 2),
    **{f"class_{i}": (f"class {i}", 1, 3) for i in range(10)},
}
# Trained epochs within this factor count as the same budget: the papers round, and count pretraining differently.
BUDGET = 1.3


@dataclasses.dataclass(frozen=True)
class PaperRow:
    """A row of a paper's table.

    Args:
      source: paper and table, "Liu et al. 2022, table 1".
      title: as it is called there.
      method: as `method_of` names it.
      network: "WRN-28-10", "LeNet-L", "ResNet-50", "bert-base".
      dataset: the data set's name here.
      scores: by the names of `SCORES`; shares in [0, 1], not per cent.
      members: tickets of the ensemble; None where the table does not say.
      sparsity: share of zeros; None where it does not say.
      epochs: trained by all its networks together; None where it does not say.
      spread: standard errors of some scores.
    """

    source: str
    title: str
    method: str
    network: str
    dataset: str
    scores: Mapping[str, float]
    members: int | None = None
    sparsity: float | None = None
    epochs: float | None = None
    spread: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class OurRow:
    """A row of ours: as a `PaperRow`, of one run or the mean over several that differ in their seed."""

    title: str
    method: str
    network: str
    dataset: str
    scores: Mapping[str, float]
    members: int | None = None
    sparsity: float | None = None
    epochs: float | None = None
    runs: int = 1


def network_of(model: str) -> str:
    """The network as the papers name it, whatever wraps it.

    >>> network_of("MIMO(WideResNet(28, 10), 3)"), network_of("LeNet(L, initial=torch)"), network_of("fine_tuning(bert-base-uncased, 2)")
    ('WRN-28-10', 'LeNet-L', 'bert-base')
    """
    found = re.search(r"(WideResNet|ResNet|DenseNet|LeNet)\(([^()]*)\)", model)
    if found:
        sizes = [word.strip() for word in found[2].split(",") if "=" not in word]
        return "-".join([found[1].replace("WideResNet", "WRN"), *sizes])
    tuned = re.search(r"(roberta|bert)-(base|large)", model)
    return tuned[0] if tuned else model


def differences(ours: OurRow, theirs: PaperRow) -> list[str]:
    """What keeps the two from being compared, in words; nothing where they are of one thing."""
    found = []
    if ours.network != theirs.network:
        found.append(f"another network ({theirs.network})")
    if ours.dataset != theirs.dataset:
        found.append(f"other data ({theirs.dataset})")
    if ours.members is not None and theirs.members is not None and ours.members != theirs.members:
        found.append(f"another size (M={theirs.members})")
    if ours.sparsity is not None and theirs.sparsity is not None and abs(ours.sparsity - theirs.sparsity) > 0.02:
        found.append(f"another sparsity ({theirs.sparsity:g})")
    if ours.epochs and theirs.epochs and not 1 / BUDGET < ours.epochs / theirs.epochs < BUDGET:
        found.append(f"another budget ({theirs.epochs:g} epochs)")
    return found


def papers_section(found: Found, published: Iterable[PaperRow]) -> Section | None:
    """A table for each of the papers' tables that has a row for something of ours; None if none has."""
    tables: dict[str, list[tuple[OurRow, PaperRow]]] = {}
    published = list(published)
    for ours in our_rows(found):
        candidates: dict[str, list[PaperRow]] = {}
        for row in published:
            if row.method == ours.method and ours.scores.keys() & row.scores.keys():
                candidates.setdefault(row.source, []).append(row)
        nearest = {source: min(rows, key=lambda row: len(differences(ours, row))) for source, rows in candidates.items()}
        fitting = {source: row for source, row in nearest.items() if not differences(ours, row)}
        if not fitting and nearest:  # one row says enough of what cannot be compared
            source = min(nearest, key=lambda source: len(differences(ours, nearest[source])))
            fitting = {source: nearest[source]}
        for source, row in fitting.items():
            tables.setdefault(source, []).append((ours, row))
    if not tables:
        return None
    about = (
        "A difference is given only where method, network, data, number of members, sparsity and training budget are the paper's. It is ours "
        "minus theirs. Everything else is marked as not comparable and has none."
    )
    names = sorted({source.split(", table")[0] for source in tables} & PAPERS.keys())
    return Section("Beside the papers", [Text(about), *(_table(source, pairs) for source, pairs in tables.items()), Sources(names)])


def _table(source: str, pairs: Sequence[tuple[OurRow, PaperRow]]) -> Table:
    columns = [name for name in SCORES if any(name in ours.scores and name in theirs.scores for ours, theirs in pairs)]
    rows, faint, bold = [], set(), set()
    for ours, theirs in pairs:
        apart = differences(ours, theirs)
        runs = f" (mean of {ours.runs} runs)" if ours.runs > 1 else ""
        rows.append([f"ours: {ours.title}{runs}", *_cells(ours.scores, columns), f"{ours.network} on {ours.dataset}"])
        rows.append([f"paper: {theirs.title}", *_cells(theirs.scores, columns, theirs.spread), f"{theirs.network} on {theirs.dataset}"])
        if apart:
            faint.add(len(rows) - 1)
            rows[-1][-1] = f"not comparable: {', '.join(apart)}"
            continue
        gaps = {name: ours.scores[name] - theirs.scores[name] for name in columns if name in ours.scores and name in theirs.scores}
        bold |= {(len(rows), 0)}
        rows.append(["difference", *_cells(gaps, columns, sign=True), ""])
    header = ["", *(SCORES[name][0] for name in columns), "of"]
    return Table(source, header, rows, bold=bold, faint=faint, texts={len(header) - 1})


def _cells(scores: Mapping[str, float], columns: Sequence[str], spread: Mapping[str, float] | None = None, sign: bool = False) -> list[str]:
    cells = []
    for name in columns:
        _, times, digits = SCORES[name]
        cell = shown(scores.get(name), digits, times)
        if cell and spread and name in spread:
            cell += f" ± {shown(spread[name], digits, times)}"
        cells.append(f"+{cell}" if sign and cell and not cell.startswith("-") else cell)
    return cells


def our_rows(found: Found) -> list[OurRow]:
    """What there is to compare: runs (those that differ only in their seed as their mean), comparisons, schemes, evaluations."""
    groups: dict[tuple[object, ...], list[tuple[Run, Mapping[str, float]]]] = {}
    taken: set[int] = set()
    for run in found.runs:
        if run.results is None:
            continue
        scores = _scores_of(run.results)
        for row in _evaluated(found):
            if _is_of(row, run):
                scores |= evaluated_scores(row.part("evaluation"))
                taken.add(id(row.data))
        key = (run.method, run.model, run.dataset, len(run.results.parts("members")), run.plan)
        groups.setdefault(key, []).append((run, scores))
    rows = [_mean(each) for each in groups.values()]
    for row in _evaluated(found):
        if id(row.data) not in taken:
            test = next(record.part("test") for record in found.evaluations if record.file == row.file)
            method, members = row.text("method", "unknown"), row.count("tickets")
            method = "independent" if method == "dense" and members == 1 else method
            scores = evaluated_scores(row.part("evaluation"))
            rows.append(OurRow(row.text("name"), method, network_of(row.text("model")), test.text("name"), scores, members))
    for record in found.comparisons:
        rows += [row for row in _compared(record) if not any(_same(row, other) for other in rows)]
    for record in found.schemes:
        rows += _schemes(record)
    return rows


def evaluated_scores(evaluation: Record) -> dict[str, float]:
    """Scores of an evaluation by the names of `SCORES`."""
    scores: dict[str, float | None] = {name: evaluation.part("ensemble").number(name) for name in ("accuracy", "nll", "ece")}
    parts = evaluation.maybe("parts")
    diversity = parts.maybe("diversity") if parts else None
    diversity = diversity or evaluation.maybe("diversity")
    if diversity is not None:
        scores |= {name: diversity.number(name) for name in ("disagreement", "kl")}
        scores |= {f"class_{i}": value for i, value in enumerate(diversity.numbers("class_disagreement")[:10])}
    corrupted = parts.maybe("corrupted") if parts else None
    if corrupted is not None and not corrupted.flag("generated"):  # the papers' are the published sets
        mean = corrupted.part("mean")
        scores |= {f"corrupted_{name}": mean.number(name) for name in ("accuracy", "nll", "ece")}
    ood = parts.maybe("ood") if parts else None
    for name in ood.data if ood is not None else ():
        scores["ood_" + re.sub("[^a-z0-9]", "", name.lower())] = ood.part(name).number("max_probability") if ood else None
    adversarial = parts.maybe("adversarial") if parts else None
    if adversarial is not None and adversarial.text("attack", "") == "fgsm" and abs((adversarial.number("step") or 0) - 8 / 255) < 1e-6:
        scores |= {f"fgsm_{name}": adversarial.number(name) for name in ("min", "mean", "max")}
    return {name: value for name, value in scores.items() if value is not None}


def _scores_of(results: Record) -> dict[str, float]:
    scores = {name: results.part("ensemble").number(name) for name in ("accuracy", "nll", "ece")}
    scores |= {name: results.part("diversity").number(name) for name in ("disagreement", "kl")}
    scores["training"] = results.part("cost").number("training")
    return {name: value for name, value in scores.items() if value is not None}


def _mean(each: Sequence[tuple[Run, Mapping[str, float]]]) -> OurRow:
    run = each[0][0]
    assert run.results is not None
    names = [name for name in each[0][1] if all(name in scores for _, scores in each)]
    scores = {name: statistics.fmean(scores[name] for _, scores in each) for name in names}
    density = run.results.part("cost").number("density")
    epochs = run.plan.width * run.plan.epochs(1) if run.plan is not None and _in_epochs(run) else None
    title = run.name if len(each) == 1 else run.method
    return OurRow(
        title, run.method, network_of(run.model), run.dataset, scores, len(run.results.parts("members")),
        None if density is None else 1 - density, epochs, len(each),
    )  # fmt: skip


def _in_epochs(run: Run) -> bool:
    return run.plan is not None and all(phase.length.unit == "epochs" for phase in run.plan.phases if hasattr(phase, "length"))  # pyright: ignore


def _evaluated(found: Found) -> list[Record]:
    return [row for record in found.evaluations for row in record.parts("rows")]


def _is_of(row: Record, run: Run) -> bool:
    """Whether a row of an evaluation is of that run's tickets: its source is the folder or a file in it."""
    source, folder = Path(row.text("source", "")), run.source.resolve()
    for place in ((Path() / source).resolve(), (row.file.parent / source).resolve()):
        if folder in (place, place.parent):
            return True
    beside = row.file.resolve().parent in (folder, folder.parent)  # written elsewhere, moved together
    return beside and folder.name in (source.name, source.parent.name)


def _compared(record: Record) -> list[OurRow]:
    network, dataset = network_of(record.text("network")), record.part("dataset").text("name")
    rows = []
    for row in record.parts("rows"):
        scores = {name: part.number("mean") for name in SCORES if (part := row.part("scores").maybe(name)) is not None}
        there = {name: value for name, value in scores.items() if value is not None}
        density = row.number("density")
        sparsity = None if density is None else 1 - density
        runs = len(row.numbers("seeds")) or 1
        rows.append(OurRow(row.text("title"), row.text("method"), network, dataset, there, row.count("members"), sparsity, None, runs))
    return rows


def _same(one: OurRow, other: OurRow) -> bool:
    return (one.method, one.network, one.dataset, one.members) == (other.method, other.network, other.dataset, other.members)


def _schemes(record: Record) -> list[OurRow]:
    network, dataset = network_of(record.text("network")), record.part("dataset").text("name")
    rows = []
    for row in record.parts("rows"):
        single, size = row.part("gain").number("single"), str(record.count("size"))
        ensemble = row.part("gain").part("ensemble").number(size)
        scores: dict[str, float | None] = {"single": single, "ensemble": ensemble}
        if single is not None and ensemble is not None:
            scores["difference"] = ensemble - single
        oracle = row.maybe("oracle")
        if oracle is not None:
            scores |= {name: oracle.number(name) for name in ("q", "ratio_errors", "negative_double_fault", "correlation")}
            scores["oracle_disagreement"] = oracle.number("disagreement")
        there = {name: value for name, value in scores.items() if value is not None}
        rows.append(OurRow(row.text("title"), row.text("scheme"), network, dataset, there, int(size)))
    return rows
