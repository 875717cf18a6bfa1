"""The tables of `evaluation.json`: clean, corrupted, out of distribution, adversarial, diversity, features, subsets."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from jaxtickets.report.html.files import Record, printable, shown, shown_nll
from jaxtickets.report.html.parts import Facts, Part, Section, Table

MOST_CLASSES = 20
CORRELATIONS = ("Pearson", "Spearman")
Rows = Sequence[tuple[str, Record]]


def evaluation_section(record: Record, number: int | None = None) -> Section:
    """Every table that an evaluation has something for.

    Args:
      record: contents of `evaluation.json`.
      number: which of several, for the heading.
    """
    test = record.part("test")
    rows = [(row.text("name"), row.part("evaluation")) for row in record.parts("rows")]
    examples = f"{test.count('examples'):,}"
    facts = [("test set", f"{test.text('name')}, {examples} examples"), ("fingerprint", test.text("fingerprint", "not told"))]
    facts += [("date", record.text("date", "not told")), ("command", record.text("command", "not told"))]
    if (told := record.maybe("correlation")) is not None:
        facts.append(("members' mean and ensemble", _correlation(told)))
    parts: list[Part] = [Facts(facts), _clean(rows)]
    for make in (_per_class, _reliability, _corrupted, _by_corruption, _ood, _adversarial, _diversity, _class_disagreement, _features):
        parts += make(rows)
    parts += _subsets([(row.text("name"), row) for row in record.parts("rows")])
    return Section("Evaluation" + (f" {number}" if number else ""), parts)


def _correlation(told: Record) -> str:
    each = (f"{name} {shown(told.number(name.lower()), 2)} (p {shown(told.number(f'{name.lower()}_pvalue'), 2)})" for name in CORRELATIONS)
    return f"accuracy over {told.count('runs')} rows: {', '.join(each)}"


def _clean(rows: Rows) -> Table:
    best = _best(rows, lambda row: row.part("ensemble").number("accuracy"))
    lines, combines, bins = [], set(), set()
    for name, row in rows:
        ensemble, mean = row.part("ensemble"), row.part("members_mean")
        line = [name, str(len(row.parts("members"))), shown(ensemble.number("accuracy"), 2, 100), shown_nll(ensemble.number("nll"))]
        line += [shown(ensemble.number(score), 1, 100) for score in ("ece", "adaptive_ece")] + [shown(ensemble.number("brier"), 3)]
        lines.append([*line, shown(mean.number("accuracy"), 2, 100), shown_nll(mean.number("nll"))])
        combines.add(row.text("combine", "proba"))
        bins.add(row.count("ece_bins"))
    note = f"ECE over {_all(bins)} bins. Members are combined by {_all(combines)} (proba: the mean of their probabilities)."
    header = ["", "members", "acc %", "NLL", "ECE %", "adaptive ECE %", "Brier", "members' acc %", "members' NLL"]
    return Table("Clean test set", header, lines, bold=set() if best is None else {(best, 2)}, note=note)


def _per_class(rows: Rows) -> list[Part]:
    there = [(name, row.part("per_class").numbers("ensemble")) for name, row in rows if "per_class" in row]
    if not there:
        return []
    classes = max(len(values) for _, values in there)
    if classes > MOST_CLASSES:
        lines = []
        for name, values in there:
            kept = sorted(value for value in values if value is not None)
            middle = statistics.median(kept) if kept else None
            lines.append(
                [name, str(len(values)), *(shown(value, 1, 100) for value in (kept[0] if kept else None, middle, max(kept, default=None)))]
            )
        return [Table("Accuracy of the ensemble by class, %", ["", "classes", "worst", "median", "best"], lines)]
    lines = [[name, *(shown(value, 1, 100) for value in values), *[""] * (classes - len(values))] for name, values in there]
    return [Table("Accuracy of the ensemble by class, %", ["class", *map(str, range(classes))], lines)]


def _reliability(rows: Rows) -> list[Part]:
    if len(rows) > 1:  # the pictures tell it better
        return []
    lines = []
    for name, row in rows:
        found = row.maybe("reliability")
        diagram = found.maybe("ensemble") if found is not None else None
        if diagram is None:
            continue
        counts, confidence, right = (diagram.numbers(part) for part in ("count", "confidence", "accuracy"))
        for count, sure, share in zip(counts, confidence, right, strict=False):
            if count:
                gap = None if sure is None or share is None else sure - share
                lines.append([name, shown(count, 0), shown(sure, 1, 100), shown(share, 1, 100), shown(gap, 1, 100)])
    note = "One row for each bin of confidence that has examples; confidence above accuracy is overconfidence."
    header = ["", "examples", "confidence %", "accuracy %", "gap %"]
    return [Table("Reliability of the ensemble", header, lines, note=note)] if lines else []


def _corrupted(rows: Rows) -> list[Part]:
    lines, made = [], False
    for name, row in _with(rows, "corrupted"):
        mean, generated = row.part("mean"), row.flag("generated")
        made |= generated
        line = [
            name,
            str(len(row.parts("sets"))),
            "generated here" if generated else "published sets",
            shown(mean.number("accuracy"), 2, 100),
        ]
        lines.append([*line, shown_nll(mean.number("nll")), shown(mean.number("ece"), 1, 100)])
    note = "Means over the sets' own scores."
    note += (
        " Generated here: pictures corrupted by this library, not the published files; not comparable with the papers' cAcc."
        if made
        else ""
    )
    header = ["", "sets", "of", "cAcc %", "cNLL", "cECE %"]
    return [Table("Corrupted test sets", header, lines, note=note, texts={2})] if lines else []


def _by_corruption(rows: Rows) -> list[Part]:
    there = _with(rows, "corrupted")
    kinds: dict[str, dict[str, list[float]]] = {}
    for name, row in there:
        for each in row.parts("sets"):
            value = each.number("accuracy")
            if value is not None:
                for kind in (each.text("corruption"), f"severity {each.count('severity')}"):
                    kinds.setdefault(kind, {}).setdefault(name, []).append(value)
    if not kinds:
        return []
    names = [name for name, _ in there]
    order = sorted(kinds, key=lambda kind: (kind.startswith("severity "), kind))
    lines = [
        [kind, *(shown(statistics.fmean(kinds[kind][name]), 2, 100) if name in kinds[kind] else "" for name in names)] for kind in order
    ]
    return [Table("Accuracy by corruption and by severity, %", ["mean over", *names], lines)]


def _ood(rows: Rows) -> list[Part]:
    lines = []
    for name, row in _with(rows, "ood"):
        for other in row.data:
            found = row.part(other)
            areas = (shown(found.number(score), 4) for score in ("max_probability", "entropy", "mutual_information"))
            lines.append([name, printable(other, 80), shown(found.number("examples"), 0), *areas])
    note = "Area under the ROC curve for telling the test set from the other by a score of the ensemble: 1 is perfect, .5 is chance."
    header = ["", "against", "examples", "max. probability", "entropy", "mutual information"]
    return [Table("Out of distribution", header, lines, note=note, texts={1})] if lines else []


def _adversarial(rows: Rows) -> list[Part]:
    lines = []
    for name, row in _with(rows, "adversarial"):
        step = row.number("step")
        line = [name, row.text("attack"), "" if step is None else f"{255 * step:g}/255", shown(row.number("examples"), 0)]
        scores = ("clean", "crafted_on_ensemble", "min", "mean", "max")
        lines.append([*line, *(shown(row.number(score), 2, 100) for score in scores)])
    note = "Accuracy of the ensemble. Min, mean, max: over the sets of examples crafted against each member in turn."
    header = ["", "attack", "step", "examples", "clean %", "crafted on the ensemble %", "min %", "mean %", "max %"]
    return [Table("Adversarial examples", header, lines, note=note, texts={1})] if lines else []


def _diversity(rows: Rows) -> list[Part]:
    lines = []
    for name, row in rows:
        parts = row.maybe("parts")
        found = (parts.maybe("diversity") if parts is not None else None) or row.maybe("diversity")
        if found is None or found.number("disagreement") is None:
            continue
        oracle = found.maybe("oracle")
        values = [shown(found.number(part), 3) for part in ("disagreement", "kl", "mask_iou", "mask_hamming", "weight_cosine")]
        itop = [value for value in found.numbers("itop") if value is not None]
        values.append(shown(statistics.fmean(itop), 3) if itop else "")
        names = ("q", "ratio_errors", "negative_double_fault", "disagreement", "correlation")
        values += [shown(oracle.number(part), 2) if oracle is not None else "" for part in names]
        lines.append([name, *values])
    note = (
        "Means over pairs of members; disagreement: share of examples whose labels differ; ITOP: share of weights that were ever active. "
        "Q, R, ND, D, C: of right and wrong answers; Q and C are less, the others more, where members differ."
    )
    header = ["", "disagreement", "KL", "mask IoU", "mask Hamming", "weight cosine", "ITOP", "Q", "R", "ND", "D", "C"]
    return [Table("Diversity of the members", header, lines, note=note)] if lines else []


def _class_disagreement(rows: Rows) -> list[Part]:
    there = [(name, values) for name, row in _with(rows, "diversity") if (values := row.numbers("class_disagreement"))]
    if not there:
        return []
    classes = min(max(len(values) for _, values in there), 10)
    lines = [[name, *(shown(value, 3) for value in values[:classes]), *[""] * (classes - len(values))] for name, values in there]
    which = "the first ten classes" if any(len(values) > classes for _, values in there) else "every class"
    return [Table(f"Disagreement on {which}", ["class", *map(str, range(classes))], lines)]


def _features(rows: Rows) -> list[Part]:
    there = [(name, row.texts("layers"), row.numbers("kl")) for name, row in _with(rows, "features")]
    lines = [[name, layer, shown(value, 4)] for name, layers, values in there for layer, value in zip(layers, values, strict=False)]
    note = "KL divergence between the members' features, mean over pairs; layers from the input on."
    return [Table("Features by depth", ["", "layer", "KL"], lines, note=note, texts={1})] if lines else []


def _subsets(rows: Rows) -> list[Part]:
    lines = []
    for name, row in rows:
        subsets = row.maybe("subsets")
        for size in subsets.numbers("sizes") if subsets is not None else []:
            found = subsets.part("accuracy").maybe(f"{size:g}") if subsets is not None and size is not None else None
            if found is not None:
                values = (shown(found.number(score), 2, 100) for score in ("mean", "standard_deviation", "min", "max"))
                lines.append([name, f"{size:g}", *values])
    note = "Accuracy in per cent over all ensembles of that size that the members make."
    return [Table("Ensembles of fewer members", ["", "members", "mean", "std. dev.", "min", "max"], lines, note=note)] if lines else []


def _with(rows: Rows, part: str) -> list[tuple[str, Record]]:
    found = [(name, parts.maybe(part)) for name, row in rows if (parts := row.maybe("parts")) is not None]
    return [(name, row) for name, row in found if row is not None]


def _best(rows: Rows, score: Callable[[Record], float | None]) -> int | None:
    """Which of several rows is best; of one nothing is."""
    if len(rows) < 2:
        return None
    values = [score(row) for _, row in rows]
    return max(range(len(values)), key=lambda i: -1.0 if (value := values[i]) is None else value, default=0)


def _all(values: set[str] | set[int]) -> str:
    return " and ".join(map(str, sorted(values)))
