"""Ours beside the papers': a row of ours, a row of theirs, and the difference where both are of one thing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from jaxtickets.report.html.files import shown
from jaxtickets.report.html.found import Found
from jaxtickets.report.html.ours import OurRow, our_rows
from jaxtickets.report.html.parts import Section, Sources, Table, Text

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
# Trained epochs within this factor count as the same budget: the papers round, and 200 epochs stand beside 250 in their own tables.
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


def differences(ours: OurRow, theirs: PaperRow) -> list[str]:
    """What keeps the two from being compared, in words; nothing where they are of one thing."""
    found = []
    if ours.network != theirs.network:
        found.append(f"another network ({theirs.network})")
    if ours.dataset != theirs.dataset:
        found.append(f"other data ({theirs.dataset})")
    if ours.members is not None and theirs.members is not None and ours.members != theirs.members:
        found.append(f"another size (M={theirs.members})")
    if theirs.sparsity is not None and (ours.sparsity is None or abs(ours.sparsity - theirs.sparsity) > 0.02):
        found.append(f"{'sparsity not told' if ours.sparsity is None else 'another sparsity'} ({theirs.sparsity:g})")
    if theirs.epochs and (ours.epochs is None or not 1 / BUDGET < ours.epochs / theirs.epochs < BUDGET):
        found.append(f"{'budget not told' if ours.epochs is None else 'another budget'} ({theirs.epochs:g} epochs)")
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
        "A difference (ours minus theirs) is given only where method, network, data, number of members, sparsity and training budget are "
        "the paper's. Everything else is marked as not comparable and has none."
    )
    names = {source.split(", table")[0] for source in tables}
    if any("*" in theirs.title for pairs in tables.values() for _, theirs in pairs):
        about += " * is quoted by the paper from Havasi et al. 2021."
        names.add("Havasi et al. 2021")
    return Section("Beside the papers", [Text(about), *(_table(source, pairs) for source, pairs in tables.items()), Sources(sorted(names))])


def _table(source: str, pairs: Sequence[tuple[OurRow, PaperRow]]) -> Table:
    columns = [name for name in SCORES if any(name in ours.scores and name in theirs.scores for ours, theirs in pairs)]
    rows, faint, bold = [], set(), set()
    for ours, theirs in pairs:
        apart = differences(ours, theirs)
        runs = f" (mean of {ours.runs} runs)" if ours.runs > 1 else ""
        rows.append([f"ours: {ours.title}{runs}", *_cells(ours.scores, columns), f"{ours.network} on {ours.dataset}"])
        named = f"paper, not comparable: {theirs.title}" if apart else f"paper: {theirs.title}"
        of = ", ".join(apart) if apart else f"{theirs.network} on {theirs.dataset}"
        rows.append([named, *_cells(theirs.scores, columns, theirs.spread), of])
        if apart:
            faint.add(len(rows) - 1)
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
