"""What a user sees of a run: plain lines in a file, one live line on a terminal, and a time left that holds."""

import io
import re
import time

import pytest
from rich.console import Console
from tiny_task import dst, edst, fit

from jaxtickets.engine.progress import ProgressLine

NUMBERS = {"loss": 0.5, "accuracy": 0.25, "density": 0.2, "examples_per_second": 1234.5}


def seconds(text):
    hours, minutes, rest = map(int, text.split(":"))
    return 3600 * hours + 60 * minutes + rest


def test_a_run_logs_plain_lines_that_name_member_phase_and_numbers(capfd):
    fit(dst(2), progress=True)
    said = capfd.readouterr()
    assert said.out == ""
    assert "\x1b" not in said.err
    assert "nan" not in said.err
    lines = said.err.splitlines()
    assert lines[-1] == "member 2 of 2, phase 3 of 3: collected 1 ticket"
    form = r"member \d of 2, phase 2 of 3: Train 2 epochs, evolving  \d+/12 steps  loss \d.\d+  acc \d+.\d%  density 0.506  [\d,]+ examples/s  [\d:?]+ left"
    trained = [line for line in lines if "Train" in line]
    assert len(trained) >= 2
    assert all(re.fullmatch(form, line) for line in trained), trained
    assert trained[-1].endswith("0:00:00 left")


def test_one_lineage_is_not_counted(capfd):
    fit(edst(2), progress=True)
    lines = capfd.readouterr().err.splitlines()
    assert "phase 5 of 7: Escape(): 80% of the active weights replaced" in lines
    assert not any("member" in line for line in lines)


def test_a_silent_run_says_nothing(capfd):
    fit(edst(2))
    assert capfd.readouterr() == ("", "")


def test_a_terminal_gets_a_live_line():
    screen = io.StringIO()
    line = ProgressLine(20, console=Console(file=screen, force_terminal=True, width=140))
    line.phase("phase 2 of 3: Train", 20)
    for step in range(1, 21):
        line.advance(1)
        line.update(step, NUMBERS, force=step == 20)
    line.say("phase 3 of 3: collected 1 ticket")
    line.close()
    line.close()
    shown = screen.getvalue()
    assert "\x1b[" in shown
    for part in (
        "100%",
        "loss 0.500",
        "acc 25.0%",
        "density 0.200",
        "1,234 examples/s",
        "0:00:00 left",
        "collected 1 ticket",
    ):
        assert part in shown


def test_the_live_line_begins_where_a_resumed_phase_is():
    screen = io.StringIO()
    line = ProgressLine(40, console=Console(file=screen, force_terminal=True, width=140))
    line.skip(30)
    line.phase("phase 2 of 3: Train", 20, 10)
    line.close()
    assert "50%" in screen.getvalue()


@pytest.mark.parametrize("before", [0, 60])
def test_the_time_left_is_that_of_all_groups_at_the_pace_of_this_run(before):
    """100 steps, `before` of them in an earlier run: after 20 more, at 10 ms each, 80 - before of them are left."""
    compiled = [0.0]
    line = ProgressLine(100, console=Console(file=io.StringIO()), compiling=lambda: compiled[0])
    line.skip(before)
    assert line.left() == "?"
    line._started -= 200 + 50  # 250 seconds for 20 steps, 50 of them compiling
    compiled[0] = 50.0
    line.advance(20)
    assert seconds(line.left()) == pytest.approx(10 * (80 - before), abs=2)
    line.advance(80 - before)
    assert seconds(line.left()) == 0


def test_lines_are_seconds_apart_but_for_the_last():
    screen = io.StringIO()
    line = ProgressLine(1000, console=Console(file=screen, width=200))
    line._logged = time.monotonic()
    line.phase("p", 1000)
    for step in range(1, 1001):
        line.update(step, NUMBERS, force=step % 100 == 0)
    assert len(screen.getvalue().splitlines()) == 1
    line._logged -= 11
    line.update(500, NUMBERS)
    assert len(screen.getvalue().splitlines()) == 2
