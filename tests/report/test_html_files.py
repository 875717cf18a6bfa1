"""Files that a report is made of: damaged, too large, of different test sets, of anything at all."""

import json
from pathlib import Path

import pytest
from run_folders import evaluation, pat, results, write_run

from jaxtickets import report
from jaxtickets.errors import ReportError
from jaxtickets.report import html, records
from jaxtickets.report.html import inputs

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        (
            "results.json",
            lambda text: text[: len(text) // 2],
            ["results.json", "damaged", "line 1"],
        ),
        (
            "results.json",
            lambda text: text.replace('"nll": 0.5', '"nll": "low"', 1),
            ["results.json", "ensemble.nll is 'low', wanted a number"],
        ),
        (
            "results.json",
            lambda text: text.replace('"nll": 0.5', '"nll": NaN', 1),
            ["results.json", "NaN is no JSON"],
        ),
        (
            "results.json",
            lambda text: text.replace('"members": [', '"members": 3, "x": [', 1),
            ["results.json", "members is 3, wanted a list"],
        ),
        ("results.json", lambda text: "[" * 100_000, ["results.json"]),
        ("results.json", lambda text: '{"ensemble": ' + "9" * 5000 + "}", ["results.json"]),
        ("results.json", lambda text: "[1]", ["results.json", "wanted a JSON object"]),
        (
            "config.json",
            lambda text: text.replace('"examples": 50000', '"examples": -1'),
            ["config.json", "run.data.examples is -1"],
        ),
        (
            "config.json",
            lambda text: text.replace('"task"', '"tusk"'),
            ["config.json", "run.task is missing"],
        ),
        ("metrics.jsonl", lambda text: "{\n" + text, ["metrics.jsonl, line 1", "damaged"]),
        (
            "metrics.jsonl",
            lambda text: text.replace('"loss": [1.0]', '"loss": [1.0, 2.0]'),
            ["metrics.jsonl", "line 1.loss", "one for each"],
        ),
    ],
)
def test_a_damaged_file_is_named_with_its_field(run, file, change, words):
    before = (run / file).read_text()
    (run / file).write_text(change(before))
    assert (run / file).read_text() != before
    with pytest.raises(ReportError) as caught:
        html.sections(html.read_inputs([run]))
    for word in words:
        assert word in str(caught.value)


def test_a_plan_of_numbers_beyond_every_float_cannot_be_read_by_this_version(run):
    config = json.loads((run / "config.json").read_text())
    config["run"]["plan"]["phases"][1]["length"]["amount"] = 10**400
    (run / "config.json").write_text(json.dumps(config))
    (found_run,) = html.read_inputs([run]).runs
    assert found_run.plan is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{", "damaged, no JSON"),
        (b"\xff", "no text at byte 0"),
        (b"[" * 100_000, "nested"),
        (b"[1]", "wanted a JSON object"),
    ],
)
def test_readers_of_single_files_say_the_same(tmp_path, text, words):
    (tmp_path / "timing.json").write_bytes(text)
    with pytest.raises(ReportError, match=words):
        report.results(None, None, None, tmp_path)
    with pytest.raises(ReportError, match=words):
        report.read_results(tmp_path)


def ways(value, way=()):
    """Every place in a JSON value."""
    yield way
    for name, inner in (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    ):
        yield from ways(inner, (*way, name))


def replaced(value, way, new):
    if not way:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[way[0]] = replaced(value[way[0]], way[1:], new)
    return copy


WRONG = pytest.mark.parametrize("wrong", [None, "x", -1, [None], {}], ids=repr)


def outcome(path, published):
    """ "page", or "error": an error for people that names a file. Anything else is raised."""
    try:
        assert html.sections(html.read_inputs([path]), published)
    except ReportError as error:
        assert ".json" in str(error)
        return "error"
    return "page"


@pytest.mark.parametrize("name", ["results.json", "config.json", "evaluation.json"])
@WRONG
def test_whatever_stands_in_a_field_of_a_run_there_is_a_page_or_an_error_for_people(
    tmp_path, published, name, wrong
):
    found = results(pat(), members=1)
    folder = write_run(tmp_path / "run", pat(), found, finished=False)
    (folder / "evaluation.json").write_text(
        json.dumps(evaluation(sources=(str(folder),), run=found))
    )
    whole, outcomes = json.loads((folder / name).read_text()), set()
    for way in ways(whole):
        (folder / name).write_text(json.dumps(replaced(whole, way, wrong)))
        outcomes.add(outcome(folder, published))
    assert outcomes == {"page", "error"}


@pytest.mark.parametrize(
    "name",
    ["compare-table1", "multi-ticket-demo", "ablation-structure-digits", "benchmark-memory-cpu"],
)
@WRONG
def test_whatever_stands_in_a_field_of_a_result_there_is_a_page_or_an_error_for_people(
    tmp_path, published, name, wrong
):
    whole = json.loads((ROOT / "experiments" / "results" / f"{name}.json").read_text())
    whole |= {rows: whole[rows][-1:] for rows in ("rows", "points") if rows in whole}
    for way in ways(whole):
        (tmp_path / "found.json").write_text(json.dumps(replaced(whole, way, wrong)))
        outcome(tmp_path / "found.json", published)
    (tmp_path / "found.json").write_text(json.dumps(whole))
    assert outcome(tmp_path / "found.json", published) == "page"


def test_a_last_line_that_was_cut_off_is_passed_over(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4.0, "lo')
    assert len(html.read_inputs([run]).runs[0].metrics) == 3


def test_no_file_is_read_beyond_its_limit(run, monkeypatch):
    monkeypatch.setattr(records, "MOST_JSON", 1000)
    with pytest.raises(ReportError, match=r"\.json: larger than"):
        html.read_inputs([run])
    with pytest.raises(ReportError, match="no PNG"):
        records.picture_address(run / "config.json")
    monkeypatch.setattr(inputs, "MOST_RUNS", 0)
    with pytest.raises(ReportError, match="more than 0 runs"):
        html.read_inputs([run])


def test_runs_on_different_test_sets_are_an_error_that_names_both(tmp_path):
    for name, prints in (("one", "aaaa"), ("other", "bbbb")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "evaluation.json").write_text(json.dumps(evaluation(fingerprint=prints)))
    with pytest.raises(ReportError) as caught:
        html.read_inputs(
            [tmp_path / "one" / "evaluation.json", tmp_path / "other" / "evaluation.json"]
        )
    for word in (
        "one/evaluation.json",
        "other/evaluation.json",
        "aaaa",
        "bbbb",
        "different test sets",
    ):
        assert word in str(caught.value)
    for name, prints in (("a", "aaaa"), ("b", None), ("c", "cccc")):
        known = {} if prints is None else {"test_fingerprint": prints}
        record = results(pat())
        write_run(tmp_path / name, pat(), record | {"dataset": record["dataset"] | known})
    html.read_inputs([tmp_path / "a", tmp_path / "b"])  # files of before do not tell theirs
    with pytest.raises(
        ReportError,
        match=r"a/results.json .* fingerprint aaaa, .*c/results.json .* fingerprint cccc",
    ):
        html.read_inputs([tmp_path / "b", tmp_path / "a", tmp_path / "c"])
    left = write_run(tmp_path / "left", pat(), results(pat()))
    right = write_run(tmp_path / "right", pat(), results(pat(), test=450))
    with pytest.raises(
        ReportError,
        match=r"left/results.json .* 10,000 examples, .*right/results.json .* 450 examples",
    ):
        html.read_inputs([left, right])


def test_what_is_no_run_is_said(tmp_path):
    unknown = tmp_path / "unknown.json"
    unknown.write_text("{}")
    with pytest.raises(ReportError, match=r"no run folder and none in it: there is no config.json"):
        html.read_inputs([ROOT / "tests"])
    with pytest.raises(ReportError, match=r"pyproject.toml: damaged, no JSON at line 1"):
        html.read_inputs([ROOT / "pyproject.toml"])
    with pytest.raises(
        ReportError,
        match=r"wanted one of results, evaluation, strengths, sweep, comparison, schemes, benchmark",
    ):
        html.read_inputs([unknown])
