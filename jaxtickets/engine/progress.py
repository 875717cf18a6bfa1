"""Progress of a run: one live line per phase on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn


class ProgressLine:
    """Says where the run is, how good it is and how long it will take.

    Args:
      total: training steps of the whole run, over all groups.
      show: False is silent.
      console: where to; standard error by default.
      compiling: seconds spent compiling so far, which say nothing about the pace of training.
    """

    def __init__(
        self,
        total: int,
        show: bool = True,
        console: Console | None = None,
        compiling: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._compiling = compiling
        self._compiled_before = compiling()
        self._console = console or Console(stderr=True)
        self._total, self._done, self.shows = total, 0, show
        self._started = time.monotonic()
        self._at_start = 0
        self._live = show and self._console.is_terminal
        self._logged = 0.0
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._name, self._steps = "", 1

    def say(self, text: str) -> None:
        """A line of its own."""
        if self.shows:
            (self._bar.console if self._bar else self._console).print(text, highlight=False)

    def phase(self, name: str, steps: int, done: int = 0) -> None:
        """A phase of `steps` begins, `done` of them are behind."""
        self.close()
        self._name, self._steps = name, steps
        if self._live:
            columns = [
                TextColumn("{task.description}"),
                BarColumn(24),
                TextColumn("{task.percentage:3.0f}% {task.fields[text]}"),
            ]
            self._bar = Progress(*columns, console=self._console, refresh_per_second=4)
            self._task = self._bar.add_task(name, total=steps, completed=done, text="compiling")
            self._bar.start()

    def skip(self, steps: int) -> None:
        """Steps that an earlier run took."""
        self._done += steps
        self._at_start += steps
        self._compiled_before = self._compiling()

    def advance(self, steps: int) -> None:
        """Steps that are done now."""
        self._done += steps

    def update(self, step: int, numbers: dict[str, Any], force: bool = False) -> None:
        """`step` steps of the phase are done; `numbers` are loss, accuracy, density and examples
        per second.
        """
        text = (
            f"loss {numbers['loss']:.3f}  acc {numbers['accuracy']:.1%}  density"
            f" {numbers['density']:.3f}  {numbers['examples_per_second']:,.0f} examples/s "
            f" {self.left()} left"
        )
        now = time.monotonic()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, text=text)
        elif (
            self.shows
            and not self._live
            and (now - self._logged > 10 or (force and step == self._steps))
        ):
            self._logged = now
            self._console.print(
                f"{self._name}  {step}/{self._steps} steps  {text}", highlight=False, soft_wrap=True
            )

    def left(self) -> str:
        """Time left for the whole plan at the pace so far."""
        done = self._done - self._at_start
        if not done:
            return "?"
        training = time.monotonic() - self._started - (self._compiling() - self._compiled_before)
        seconds = training / done * (self._total - self._done)
        return str(datetime.timedelta(seconds=round(max(0.0, seconds))))

    def close(self) -> None:
        """End the live line, leaving it on the screen."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None
