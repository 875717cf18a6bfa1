"""One table in a terminal, in Markdown and in LaTeX: the same cells, the same ones bold."""

import copy
import re
import sys

import pytest
from others import others
from rich.console import Console

from jaxtickets import report
from jaxtickets.errors import ReportError
from jaxtickets.report import html, rendering
from jaxtickets.report.rendering import latex_escape


def row(name, accuracy, nll, tickets=3):
    scores = {"accuracy": accuracy, "nll": nll, "ece": 0.02, "brier": 0.1}
    return {
        "name": name,
        "tickets": tickets,
        "evaluation": {
            "ensemble": scores,
            "diversity": {
                "disagreement": 0.0312 if tickets > 1 else None,
                "kl": 0.1 if tickets > 1 else None,
                "mask_iou": None,
            },
            "ece_bins": 15,
            "combine": "proba",
            "parts": {},
        },
        "run": None,
    }


@pytest.fixture
def found():
    rows = [row("EDST_0.8 & more", 0.951, 0.2), row("one | dense", 0.943, None, tickets=1)]
    rows[0]["run"] = {"cost": {"training": 0.61, "inference": 0.68}, "seconds": {"train": 1234.5}}
    rows[0]["evaluation"]["parts"] = {
        "corrupted": {
            "generated": True,
            "sets": [{}] * 75,
            "mean": {"accuracy": 0.8, "nll": 0.7, "ece": 0.1},
        },
        "ood": {
            "svhn": {
                "examples": 10,
                "max_probability": 0.93,
                "entropy": 0.94,
                "mutual_information": None,
            }
        },
        "adversarial": {"attack": "fgsm", "step": 8 / 255, "min": 0.1, "mean": 0.2, "max": 0.3},
    }
    return {"test": {"name": "cifar10", "examples": 10_000}, "rows": rows}


WANTED = [
    "95.10",
    "0.200",
    "2.00",
    "0.100",
    "80.00",
    "0.700",
    "10.00",
    "93.00",
    "10.00",
    "20.00",
    "30.00",
    "3.12",
    "0.100",
    "0.61x",
    "0.68x",
]


def test_four_renderings_have_the_same_cells(found):
    table = report.evaluation_table(found)
    markdown = report.markdown_table(table).splitlines()
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in markdown[:4]}) == 1
    cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", markdown[2])[2:-1]]
    assert [cell.strip("*") for cell in cells] == [*WANTED, "1,234"]
    latex = report.latex_table(table)
    line = next(line for line in latex.splitlines() if line.startswith("EDST"))
    told = [cell.replace(r"$\times$", "x").strip(" \\") for cell in re.split(r"(?<!\\)&", line)[1:]]
    assert [re.sub(r"textbf\{(.*)\}", r"\1", cell) for cell in told] == [
        cell.strip("*") for cell in cells
    ]
    assert ["textbf" in cell for cell in told] == ["**" in cell for cell in cells]
    assert sum("**" in cell for cell in cells) == 2  # accuracy and NLL: two numbers that differ
    console = Console(width=80, no_color=True)
    with console.capture() as captured:
        console.print(table)
    text = captured.get()
    assert "…" not in text
    shown = [
        word
        for line in text.splitlines()
        if line.strip().startswith("EDST_0.8")
        for word in line.split()[4:]
    ]
    assert shown == [cell.strip("*") for cell in cells]
    assert "theoretical" in text
    assert "generated" in text
    page = html.render("Report", "about", [html.Section("Scores", [table])])
    line = next(row for row in re.findall("<tr>(.*?)</tr>", page) if "EDST" in row)
    shown = re.findall(r"<td( class=\"bold\")?>(.*?)</td>", line)
    assert [cell for _, cell in shown] == [cell.strip("*") for cell in cells]
    assert [bool(bold) for bold, _ in shown] == ["**" in cell for cell in cells]


def test_without_jinja_the_extra_is_named(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    table = report.evaluation_table(found)
    rendering.environment.cache_clear()
    for write in (report.markdown_table, report.latex_table, lambda _: html.render("", "", [])):
        with pytest.raises(ImportError, match=r"pip install 'jaxtickets\[plots\]'"):
            write(table)
    rendering.environment.cache_clear()


def test_means_have_their_errors_and_rows_their_weight():
    columns = (report.Column("acc %", times=100, better="higher", arrow=False),)
    cells = ((report.Mean(0.5, 0.01),), (report.Mean(0.5),), (report.Mean(0.25, 0.5),), (None,))
    table = report.ScoreTable(columns, ("a", "b", "c", "d"), cells, strong=frozenset([3]))
    # 50.00 is best by its text and value, "50.00 ± 1.00" is another text of the same value
    assert [text for ((text, _),) in table.lines()] == [
        "50.00 ± 1.00",
        "50.00",
        "25.00 ± 50.00",
        "",
    ]
    assert "| **d** | |" in report.markdown_table(table)
    assert r"\textbf{d} &  \\" in report.latex_table(table)


def test_what_is_missing_is_empty_and_what_is_infinite_is_told(found):
    table = report.evaluation_table(found)
    second = dict(
        zip(
            [column.title for column in table.columns],
            [text for text, _ in table.lines()[1]],
            strict=True,
        )
    )
    assert second["NLL"] == "inf"
    assert [
        second[name] for name in ("cAcc", "AUROC svhn", "adv. min", "disagreement", "seconds")
    ] == [""] * 5
    assert r"$\infty$" in report.latex_table(table)
    assert table.names == ("EDST_0.8 & more (M=3)", "one | dense")


def test_columns_are_there_where_something_was_measured(found):
    found["rows"] = found["rows"][1:]
    titles = [column.title for column in report.evaluation_table(found).columns]
    assert titles == ["accuracy", "NLL", "ECE", "Brier", "disagreement", "KL"]
    assert not any(best for _, best in report.evaluation_table(found).lines()[0])


def test_the_score_of_other_distributions_can_be_chosen(found):
    place = [column.title for column in report.evaluation_table(found).columns].index("AUROC svhn")
    assert report.evaluation_table(found, ood="entropy").cells[0][place] == 0.94
    assert report.evaluation_table(found, ood="mutual_information").cells[0][place] is None
    with pytest.raises(ReportError, match="wanted one of 'max_probability'"):
        report.evaluation_table(found, ood="logits")


def test_best_is_by_what_is_shown():
    columns = (
        report.Column("a", better="higher"),
        report.Column("b", better="lower"),
        report.Column("c"),
    )
    table = report.ScoreTable(
        columns, ("x", "y", "z"), ((1.0, 2.001, 1.0), (1.0, 2.004, 2.0), (1.0, None, 3.0))
    )
    # All alike; two alike beside nothing; neither way better.
    assert [[best for _, best in line] for line in table.lines()] == [[False] * 3] * 3
    table = report.ScoreTable(
        columns, ("x", "y", "z"), ((1.0, 2.001, 1.0), (-1.0, 2.004, 2.0), (1.001, 3.0, 3.0))
    )
    assert [[best for _, best in line] for line in table.lines()] == [
        [True, True, False],
        [False, True, False],
        [True, False, False],
    ]
    assert r"$-$1.00" in report.latex_table(table)


def test_numbers_are_kept_in_full(found, tmp_path):
    from jaxtickets.report.canvas import write_rows

    found["rows"][0]["evaluation"]["ensemble"]["accuracy"] = 2 / 3
    rows = report.evaluation_table(found).rows()
    assert rows[0]["accuracy (share)"] == 2 / 3
    assert "0.6666666666666666" in write_rows(rows, tmp_path / "table.csv").read_text()


def test_select(found):
    table = report.evaluation_table(found).select("NLL", "accuracy")
    assert [column.title for column in table.columns] == ["NLL", "accuracy"]
    assert table.cells[0] == (0.2, 0.951)
    with pytest.raises(
        ReportError, match="no column is called 'loss'; there are 'NLL', 'accuracy'"
    ):
        table.select("loss")


def test_tables_that_do_not_fit():
    column = report.Column("a")
    with pytest.raises(ReportError, match="got 1 for 2 rows"):
        report.ScoreTable((column,), ("x",), ((1.0,), (2.0,)))
    with pytest.raises(ReportError, match="'x' has 2 for 1 columns"):
        report.ScoreTable((column,), ("x",), ((1.0, 2.0),))
    with pytest.raises(ReportError, match="'higher', 'lower', 'none'"):
        report.Column("a", better="more")  # pyright: ignore
    with pytest.raises(ReportError, match="got none"):
        report.evaluation_table({"rows": []})


def test_latex_is_escaped_as_pandas_escapes_it():
    frame = others("pandas")
    others("jinja2")
    text = r"50% of C:\a_b ~ {x^2} & $5 #1"
    theirs = (
        frame.DataFrame({"a": [text]}).style.format(escape="latex").hide(axis="index").to_latex()
    )
    line = next(line for line in theirs.splitlines() if line.startswith("50"))
    # pandas ends its words for signs with a space where ours have braces, and writes a space before or after them with another sign.
    plain = line.removesuffix(r"\\").strip().replace(r"\space", "")
    same = [re.sub(r"\s+|(?<=[a-z])\{\}", "", each) for each in (plain, latex_escape(text))]
    assert same[0] == same[1]


def test_a_float_has_a_caption_a_label_and_the_notes(found):
    table = report.evaluation_table(copy.deepcopy(found))
    text = report.latex_table(table, caption="Accuracy in %", label="tab:one")
    assert r"\caption{Accuracy in \%}" in text
    assert r"\label{tab:one}" in text
    assert r"\footnotesize cifar10, 10,000 test examples." in text
    begins, ends = (
        re.findall(rf"^\\{word}\{{(\w+)\}}", text, re.MULTILINE) for word in ("begin", "end")
    )
    assert begins == ends[::-1] == ["table", "tabular"]
