"""Our results beside the papers': our row, theirs, and the difference where both are alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from jaxtickets.report.html.blocks import Section, Sources, Text
from jaxtickets.report.html.inputs import ReportInputs
from jaxtickets.report.html.own_rows import OurRow, our_rows
from jaxtickets.report.table import Cell, Column, Mean, ScoreTable, table_of

SCORES: Mapping[str, Column] = {
    "accuracy": Column("acc", "%", 100),
    "nll": Column("NLL", digits=3),
    "ece": Column("ECE", "%", 100, 1),
    "corrupted_accuracy": Column("cAcc", "%", 100, 1),
    "corrupted_nll": Column("cNLL", digits=3),
    "corrupted_ece": Column("cECE", "%", 100, 1),
    "imagenet_a_accuracy": Column("aAcc", "%", 100, 1),
    "imagenet_a_nll": Column("aNLL"),
    "imagenet_a_ece": Column("aECE", "%", 100),
    "training": Column("training FLOPs, x"),
    "training_runs": Column("runs", digits=1),
    "inference": Column("inference FLOPs, x"),
    "members_accuracy": Column("members' acc", "%", 100),
    "disagreement": Column("disagreement", digits=3),
    "kl": Column("KL", digits=3),
    "ood_svhn": Column("OoD SVHN", digits=4),
    "ood_cifar10": Column("OoD CIFAR-10", digits=4),
    "ood_cifar100": Column("OoD CIFAR-100", digits=4),
    "ood_gaussiannoise": Column("OoD noise", digits=4),
    **{f"fgsm_{name}": Column(f"FGSM {name}", "%", 100) for name in ("min", "mean", "max")},
    **{name: Column(name, "%", 100) for name in ("single", "ensemble")},
    "difference": Column("diff.", "%", 100),
    "q": Column("Q"),
    "ratio_errors": Column("R"),
    "negative_double_fault": Column("ND"),
    "oracle_disagreement": Column("D"),
    "correlation": Column("C"),
    "accuracy_pearson": Column("Pearson", digits=3),
    "accuracy_spearman": Column("Spearman", digits=3),
    **{f"class_{i}": Column(f"class {i}", digits=3) for i in range(10)},
}
"""Scores as both sides name them, in the order of the columns."""
# Trained epochs within this factor count as the same budget: the papers round, and 200 epochs stand
# beside 250 in their own tables.
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
      reference: epochs of the dense run that the score "training" is a multiple of.
      counted: why its training FLOPs or runs are others than those that are counted here.
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
    reference: float | None = None
    counted: str = ""


def differences(ours: OurRow, theirs: PaperRow) -> list[str]:
    """What keeps two rows from being compared, in words; nothing where they are of one thing."""
    reasons = []
    if ours.network != theirs.network:
        reasons.append(f"another network ({theirs.network})")
    if ours.dataset != theirs.dataset:
        reasons.append(f"other data ({theirs.dataset})")
    if ours.members is not None and theirs.members is not None and ours.members != theirs.members:
        reasons.append(f"another size (M={theirs.members})")
    if theirs.sparsity is not None and (
        ours.sparsity is None or abs(ours.sparsity - theirs.sparsity) > 0.02
    ):
        reasons.append(
            f"{'sparsity not told' if ours.sparsity is None else 'another sparsity'}"
            f" ({theirs.sparsity:g})"
        )
    if theirs.epochs and (
        ours.epochs is None or not 1 / BUDGET < ours.epochs / theirs.epochs < BUDGET
    ):
        reasons.append(
            f"{'budget not told' if ours.epochs is None else 'another budget'} ({theirs.epochs:g}"
            " epochs)"
        )
    return reasons


def papers_section(inputs: ReportInputs, published: Iterable[PaperRow]) -> Section | None:
    """A table for each of the papers' that has a row for something of ours; None if none has."""
    tables: dict[str, list[tuple[OurRow, PaperRow]]] = {}
    published = list(published)
    for ours in our_rows(inputs):
        candidates: dict[str, list[PaperRow]] = {}
        for row in published:
            if row.method == ours.method and ours.scores.keys() & row.scores.keys():
                candidates.setdefault(row.source, []).append(row)
        nearest = {
            source: min(rows, key=lambda row: len(differences(ours, row)))
            for source, rows in candidates.items()
        }
        fitting = {source: row for source, row in nearest.items() if not differences(ours, row)}
        if not fitting and nearest:  # one row says enough of what cannot be compared
            source = min(nearest, key=lambda source: len(differences(ours, nearest[source])))
            fitting = {source: nearest[source]}
        for source, row in fitting.items():
            tables.setdefault(source, []).append((ours, row))
    if not tables:
        return None
    introduction = (
        "A difference (ours minus theirs) is given only where method, network, data, number of"
        " members, sparsity and training budget are the paper's. Everything else is marked as not"
        " comparable and has none."
    )
    names = {source.split(", table")[0] for source in tables}
    if any("*" in theirs.title for pairs in tables.values() for _, theirs in pairs):
        introduction += " * is quoted by the paper from Havasi et al. 2021."
        names.add("Havasi et al. 2021")
    return Section(
        "Beside the papers",
        [
            Text(introduction),
            *(_table(source, pairs) for source, pairs in tables.items()),
            Sources(sorted(names)),
        ],
    )


def in_their_unit(ours: OurRow, theirs: PaperRow) -> OurRow:
    """Our row with its cost as a multiple of the paper's dense run, where both are known."""
    scores = {name: value for name, value in ours.scores.items() if name != "training"}
    if "training" in ours.scores and ours.reference and theirs.reference:
        scores["training"] = ours.scores["training"] * ours.reference / theirs.reference
    return dataclasses.replace(ours, scores=scores)


def _table(source: str, pairs: Sequence[tuple[OurRow, PaperRow]]) -> ScoreTable:
    shown = [
        name
        for name in SCORES
        if any(name in ours.scores and name in theirs.scores for ours, theirs in pairs)
    ]
    lines: list[tuple[str, list[Cell]]] = []
    faint, strong = set(), set()
    for row, theirs in pairs:
        ours = in_their_unit(row, theirs)
        reasons = differences(ours, theirs)
        runs = f" (mean of {ours.runs} runs)" if ours.runs > 1 else ""
        our_cells: list[Cell] = [ours.scores.get(name) for name in shown]
        lines.append(
            (f"ours: {ours.title}{runs}", [*our_cells, f"{ours.network} on {ours.dataset}"])
        )
        printed: list[Cell] = [
            Mean(theirs.scores[name], theirs.spread.get(name)) if name in theirs.scores else None
            for name in shown
        ]
        if reasons:
            faint.add(len(lines))
            name = f"paper, not comparable: {theirs.title}"
            lines.append((name, [*printed, ", ".join(reasons)]))
            continue
        name = f"paper: {theirs.title}"
        lines.append((name, [*printed, f"{theirs.network} on {theirs.dataset}"]))
        gaps: list[Cell] = [
            dataclasses.replace(SCORES[name], sign=True).show(
                ours.scores[name] - theirs.scores[name]
            )
            if name in ours.scores and name in theirs.scores
            else None
            for name in shown
        ]
        strong.add(len(lines))
        lines.append(("difference", [*gaps, None]))
    units = {theirs.reference for _, theirs in pairs} - {None}
    note = (
        f"Training FLOPs are theoretical, as multiples of one dense run over {units.pop():g}"
        " epochs, the paper's unit and here ours."
        if "training" in shown and len(units) == 1
        else ""
    )
    if {"training", "training_runs"} & set(shown):
        counted = {theirs.title: theirs.counted for _, theirs in pairs if theirs.counted}
        note = " ".join([note, *(f"{title}: {reason}" for title, reason in counted.items())])
    columns = [*(SCORES[name] for name in shown), Column("of", words=True)]
    table = table_of(source, columns, lines, note.strip())
    return dataclasses.replace(table, faint=frozenset(faint), strong=frozenset(strong))
