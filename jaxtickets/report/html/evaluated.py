"""The tables of an `evaluation.json`: clean, corrupted, other data, attacks, diversity, ..."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from jaxtickets.report.html.blocks import Block, Facts, Section
from jaxtickets.report.html.scores import (
    ACCURACY,
    BRIER,
    ECE,
    MEMBERS,
    MEMBERS_ACCURACY,
    NLL,
    clean_scores,
)
from jaxtickets.report.records import Record, printable
from jaxtickets.report.schemes import MEASURES
from jaxtickets.report.table import Cell, Column, ScoreTable, table_of

MOST_CLASSES = 20
CORRELATIONS = ("Pearson", "Spearman")
EXAMPLES = Column("examples", digits=0)
Rows = Sequence[tuple[str, Record]]
Lines = list[tuple[str, Sequence[Cell]]]


def evaluation_section(record: Record, number: int | None = None) -> Section:
    """The section of an evaluation, with every table that it has something for.

    Args:
      record: contents of `evaluation.json`.
      number: which of several, for the heading.
    """
    test, rows = record.part("test"), record.parts("rows")
    facts = [
        ("test set", f"{test.text('name')}, {test.count('examples'):,} examples"),
        ("fingerprint", test.text("fingerprint", "not told")),
        ("date", record.text("date", "not told")),
        ("command", record.text("command", "not told")),
    ]
    if (correlation := record.maybe("correlation")) is not None:
        facts.append(("members' mean and ensemble", _correlation(correlation)))
    if (by_method := record.maybe("correlations")) is not None:
        facts += [
            (f"members' mean and ensemble, {printable(name)}", _correlation(by_method.part(name)))
            for name in by_method.data
        ]
    evaluations = [(row.text("name"), row.part("evaluation")) for row in rows]
    tables = [
        _clean(evaluations),
        _per_class(evaluations),
        _reliability(evaluations),
        _corrupted(_with(evaluations, "corrupted")),
        _by_corruption(_with(evaluations, "corrupted")),
        _shifted(_with(evaluations, "shifted")),
        _ood(_with(evaluations, "ood")),
        _adversarial(_with(evaluations, "adversarial")),
        _diversity(evaluations),
        _class_disagreement(_with(evaluations, "diversity")),
        _features(_with(evaluations, "features")),
        _subsets([(row.text("name"), row) for row in rows]),
    ]
    blocks: list[Block] = [Facts(facts), *(table for table in tables if table.names)]
    return Section("Evaluation" + (f" {number}" if number else ""), blocks)


def _correlation(record: Record) -> str:
    show = Column("").show
    values = (
        f"{name} {show(record.number(name.lower()))} (p"
        f" {show(record.number(f'{name.lower()}_pvalue'))})"
        for name in CORRELATIONS
    )
    return f"accuracy over {record.count('runs')} rows: {', '.join(values)}"


def _clean(rows: Rows) -> ScoreTable:
    names = ("accuracy", "nll", "ece", "adaptive_ece", "brier")
    columns = (
        *(MEMBERS, ACCURACY, NLL, ECE, Column("adaptive ECE", "%", 100, 1, "lower"), BRIER),
        *(MEMBERS_ACCURACY, Column("members' NLL", digits=3)),
    )
    lines: Lines = [
        (
            name,
            [
                len(row.parts("members")),
                *clean_scores(row.part("ensemble"), *names),
                *clean_scores(row.part("members_mean"), "accuracy", "nll"),
            ],
        )
        for name, row in rows
    ]
    bins = sorted({row.count("ece_bins") for _, row in rows})
    combined = sorted({row.text("combine", "proba") for _, row in rows})
    note = (
        f"ECE over {' and '.join(map(str, bins))} bins. Members are combined by"
        f" {' and '.join(combined)} (proba: the mean of their probabilities)."
    )
    return table_of("Clean test set", columns, lines, note)


def _per_class(rows: Rows) -> ScoreTable:
    scored = [
        (name, row.part("per_class").numbers("ensemble"))
        for name, row in rows
        if "per_class" in row
    ]
    title = "Accuracy of the ensemble by class, %"
    if max((len(values) for _, values in scored), default=0) <= MOST_CLASSES:
        return _by_class(title, scored, Column("", times=100, digits=1))
    lines: Lines = []
    for name, values in scored:
        numbers = [value for value in values if value is not None]
        ends = [min(numbers), statistics.median(numbers), max(numbers)] if numbers else [None] * 3
        lines.append((name, [len(values), *ends]))
    shares = (Column(name, times=100, digits=1) for name in ("worst", "median", "best"))
    return table_of(title, (Column("classes", digits=0), *shares), lines)


def _by_class(title: str, rows: Sequence[tuple[str, Sequence[Cell]]], column: Column) -> ScoreTable:
    """A column for each class, empty where a row has fewer."""
    classes = max((len(values) for _, values in rows), default=0)
    columns = [Column(str(i), times=column.times, digits=column.digits) for i in range(classes)]
    lines: Lines = [(name, [*values, *[None] * (classes - len(values))]) for name, values in rows]
    return table_of(title, columns, lines, corner="class")


def _reliability(rows: Rows) -> ScoreTable:
    shares = ("confidence", "accuracy", "gap")
    columns = (EXAMPLES, *(Column(name, "%", 100, 1) for name in shares))
    lines: Lines = []
    for name, row in rows if len(rows) == 1 else ():  # the pictures tell it better of several
        diagrams = row.maybe("reliability")
        diagram = diagrams.maybe("ensemble") if diagrams is not None else None
        if diagram is None:
            continue
        bins = (diagram.numbers(field) for field in ("count", "confidence", "accuracy"))
        for count, confidence, accuracy in zip(*bins, strict=False):
            if count:
                gap = None if confidence is None or accuracy is None else confidence - accuracy
                lines.append((name, [count, confidence, accuracy, gap]))
    note = (
        "One row for each bin of confidence that has examples; confidence above accuracy is"
        " overconfidence."
    )
    return table_of("Reliability of the ensemble", columns, lines, note)


def _corrupted(rows: Rows) -> ScoreTable:
    columns = (
        Column("sets", digits=0),
        Column("of", words=True),
        Column("cAcc", "%", 100, 2, "higher"),
        Column("cNLL", "", 1, 3, "lower"),
        Column("cECE", "%", 100, 1, "lower"),
    )
    lines: Lines = []
    for name, row in rows:
        whose = "generated here" if row.flag("generated") else "published sets"
        scores = clean_scores(row.part("mean"), "accuracy", "nll", "ece")
        lines.append((name, [len(row.parts("sets")), whose, *scores]))
    note = "Means over the sets' own scores."
    if any(row.flag("generated") for _, row in rows):
        note += (
            " Generated here: pictures corrupted by this library, not the published files; not"
            " comparable with the papers' cAcc."
        )
    return table_of("Corrupted test sets", columns, lines, note)


def _by_corruption(rows: Rows) -> ScoreTable:
    accuracies: dict[str, dict[str, list[float]]] = {}
    for name, row in rows:
        for scores in row.parts("sets"):
            value = scores.number("accuracy")
            for kind in (scores.text("corruption"), f"severity {scores.count('severity')}"):
                if value is not None:
                    accuracies.setdefault(kind, {}).setdefault(name, []).append(value)
    kinds = sorted(accuracies, key=lambda kind: (kind.startswith("severity "), kind))
    means = {
        kind: {name: statistics.fmean(values) for name, values in accuracies[kind].items()}
        for kind in kinds
    }
    columns = [Column(name, times=100) for name, _ in rows]
    lines: Lines = [(kind, [means[kind].get(name) for name, _ in rows]) for kind in kinds]
    title = "Accuracy by corruption and by severity, %"
    return table_of(title, columns, lines, corner="mean over")


def _shifted(rows: Rows) -> ScoreTable:
    columns = (Column("set", words=True), ACCURACY, NLL, ECE, MEMBERS_ACCURACY, EXAMPLES)
    lines: Lines = []
    for name, part in rows:
        for pictures in part.data:
            scores = part.part(pictures)
            cells = clean_scores(scores.part("ensemble"), "accuracy", "nll", "ece")
            members = scores.part("members_mean").number("accuracy")
            lines.append((name, (printable(pictures), *cells, members, scores.number("examples"))))
    note = "Predictions are restricted to the classes that a set has."
    return table_of("More pictures of the classes", columns, lines, note)


def _ood(rows: Rows) -> ScoreTable:
    scores = ("max_probability", "entropy", "mutual_information")
    columns = (
        *(Column("against", words=True), EXAMPLES, Column("max. probability", digits=4)),
        *(Column("entropy", digits=4), Column("mutual information", digits=4)),
    )
    lines: Lines = []
    for name, row in rows:
        for other in row.data:
            areas = row.part(other)
            values = [areas.number(field) for field in ("examples", *scores)]
            lines.append((name, [printable(other, 80), *values]))
    note = (
        "Area under the ROC curve for telling the test set from the other by a score of the"
        " ensemble: 1 is perfect, .5 is chance."
    )
    return table_of("Out of distribution", columns, lines, note)


def _adversarial(rows: Rows) -> ScoreTable:
    scores = ("clean", "crafted_on_ensemble", "min", "mean", "max")
    headings = ("clean", "crafted on the ensemble", "min", "mean", "max")
    columns = (
        *(Column("attack", words=True), Column("step"), EXAMPLES),
        *(Column(heading, "%", 100) for heading in headings),
    )
    lines: Lines = []
    for name, row in rows:
        step = row.number("step")
        setting = [row.text("attack"), None if step is None else f"{255 * step:g}/255"]
        values = [row.number(field) for field in ("examples", *scores)]
        lines.append((name, [*setting, *values]))
    note = (
        "Accuracy of the ensemble. Min, mean, max: over the sets of examples crafted against each"
        " member in turn."
    )
    return table_of("Adversarial examples", columns, lines, note)


def _diversity(rows: Rows) -> ScoreTable:
    names = ("disagreement", "kl", "mask_iou", "mask_hamming", "weight_cosine")
    headings = ("disagreement", "KL", "mask IoU", "mask Hamming", "weight cosine", "ITOP")
    columns = [Column(heading, digits=3) for heading in headings]
    columns += [Column(heading.split()[0]) for heading in MEASURES.values()]
    lines: Lines = []
    for name, row in rows:
        suite = row.maybe("parts")
        measured = (suite.maybe("diversity") if suite is not None else None) or row.maybe(
            "diversity"
        )
        if measured is None or measured.number("disagreement") is None:
            continue
        itop = [value for value in measured.numbers("itop") if value is not None]
        oracle = measured.maybe("oracle")
        values: list[Cell] = [measured.number(field) for field in names]
        values.append(statistics.fmean(itop) if itop else None)
        values += [None if oracle is None else oracle.number(field) for field in MEASURES]
        lines.append((name, values))
    note = (
        "Means over pairs of members; disagreement: share of examples whose labels differ; ITOP:"
        " share of weights that were ever active. Q, R, ND, D, C: of right and wrong answers; Q and"
        " C are less, the others more, where members differ."
    )
    return table_of("Diversity of the members", columns, lines, note)


def _class_disagreement(rows: Rows) -> ScoreTable:
    measured = [(name, row.numbers("class_disagreement")) for name, row in rows]
    measured = [(name, values) for name, values in measured if values]
    which = "the first ten classes" if any(len(v) > 10 for _, v in measured) else "every class"
    first = [(name, values[:10]) for name, values in measured]
    return _by_class(f"Disagreement on {which}", first, Column("", digits=3))


def _features(rows: Rows) -> ScoreTable:
    lines: Lines = [
        (name, layer)
        for name, row in rows
        for layer in zip(row.texts("layers"), row.numbers("kl"), strict=False)
    ]
    note = "KL divergence between the members' features, mean over pairs; layers from the input on."
    columns = (Column("layer", words=True), Column("KL", digits=4))
    return table_of("Features by depth", columns, lines, note)


def _subsets(rows: Rows) -> ScoreTable:
    scores = ("mean", "standard_deviation", "min", "max")
    lines: Lines = []
    for name, row in rows:
        subsets = row.maybe("subsets")
        for size in subsets.numbers("sizes") if subsets is not None else []:
            if subsets is None or size is None:
                continue
            accuracy = subsets.part("accuracy").maybe(f"{size:g}")
            if accuracy is not None:
                lines.append((name, [size, *(accuracy.number(field) for field in scores)]))
    columns = (MEMBERS, *(Column(name, times=100) for name in ("mean", "std. dev.", "min", "max")))
    note = "Accuracy in per cent over all ensembles of that size that the members make."
    return table_of("Ensembles of fewer members", columns, lines, note)


def _with(rows: Rows, part: str) -> Rows:
    """Rows that have measured a part of the suite, each with that part."""
    suites = [(name, row.maybe("parts")) for name, row in rows]
    measured = [(name, suite.maybe(part)) for name, suite in suites if suite is not None]
    return [(name, record) for name, record in measured if record is not None]
