"""The automatic layout: a prior by platform and network, what fits the device, what was fastest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from jaxtickets.engine import device_memory, measured_layouts
from jaxtickets.engine.candidates import Candidates
from jaxtickets.engine.device_memory import DoesNotFit, amount
from jaxtickets.engine.run import Run
from jaxtickets.engine.trial import Trial, try_layout
from jaxtickets.errors import RunError
from jaxtickets.members import Across, Layout

# Measuring may cost this share of the time that training is expected to take.
_WORTH = 0.05
# Seconds of steps that each candidate is measured for, after its first call.
_SECONDS = 1.0
# Training steps of all networks below which nobody would measure.
_FEW = 2000
_NEVER = 1e9
_HOW = {"unroll": "unrolled", "vmap": "vmapped", "map": "mapped"}


class Chosen(NamedTuple):
    """A layout, whether its data is streamed from the host, and why, in one line."""

    layout: Layout
    streamed: bool
    why: str

    def about(self) -> dict[str, Any]:
        """What has to be the same on all hosts."""
        mesh = self.layout.mesh and dict(self.layout.mesh.shape)
        how = {"group": self.layout.group, "across": self.layout.across, "mesh": mesh}
        return {"layout": how | {"streamed from the host": self.streamed}}


def choose(
    run_of: Callable[[Layout, bool], Run],
    among: Candidates,
    say: Callable[[str], None],
) -> Chosen:
    """The layout of a run that begins.

    Args:
      run_of: the run with a layout, its data streamed or not.
      among: the candidates.
      say: tells what takes a while.

    Raises:
      RunError: not even one member fits the device.
    """
    asked = among.asked
    prior, (largest, *_) = next(iter(among.layouts.items()))
    stated = asked.memory or device_memory.stated_memory()
    given = asked.group is not None and asked.across is not None and asked.measure is not True
    tries = jax.default_backend() != "cpu" or stated is not None or asked.measure is True
    tries = tries and not given
    limit = stated or device_memory.usable_memory()
    # Processes would have to agree on what each of them measures.
    if not tries or jax.process_count() > 1 or not among.steps:
        streamed = limit is not None and among.data > limit
        why = ["the data does not fit the device and is streamed from the host"] * streamed
        return Chosen(largest, streamed, _words(largest, *why) if tries or why else "")
    ladder, key = _Ladder(run_of, limit, among), among.key()
    known = measured_layouts.read_measured(key) if asked.measure is None else None
    if known and (layouts := among.layouts.get(next(iter(known)))):
        found = ladder.fitting(layouts, 0.0)
        return found.chosen(f"{_times(known)}, as measured before")
    others: list[Across] = [across for across in among.layouts if across != prior]
    may_earn = asked.measure is not False and (asked.measure or among.steps >= _FEW)
    found = ladder.fitting(among.layouts[prior], _SECONDS if others and may_earn else 0.0)
    if found.trial.seconds is None and others and may_earn:  # all of its training is one call
        return found.chosen("too short to measure")
    if not others or not _earned(among.steps, found.trial, len(others), asked.measure):
        return found.chosen("likely the fastest for this network" if asked.across is None else "")
    say(f"layout: measuring {', '.join(among.layouts)} ...")
    best = found
    seconds: dict[Across, float] = {prior: found.seconds}
    for across in others:
        try:
            other = ladder.fitting(among.layouts[across], _SECONDS, enough=3 * best.seconds)
        except RunError:
            continue
        seconds[across] = other.seconds
        best = min(best, other, key=lambda one: one.seconds)
    order = sorted(seconds.items(), key=lambda item: item[1])
    times: dict[Across, float] = {across: each for across, each in order if each < _NEVER}
    measured_layouts.keep_measured(key, times)
    return best.chosen(_times(times))


class _Found(NamedTuple):
    """A layout that fits, its trial, and why it is no larger one."""

    layout: Layout
    streamed: bool
    trial: Trial
    smaller: str

    @property
    def seconds(self) -> float:
        return self.trial.seconds or _NEVER

    def chosen(self, why: str) -> Chosen:
        return Chosen(
            self.layout,
            self.streamed,
            _words(self.layout, *filter(None, (why, self.smaller))),
        )


class _Ladder:
    """Tries layouts from the largest group down until one fits."""

    def __init__(
        self, run_of: Callable[[Layout, bool], Run], limit: int | None, among: Candidates
    ) -> None:
        self._run_of, self._limit, self._among = run_of, limit, among

    def fitting(self, layouts: list[Layout], seconds: float, enough: float = _NEVER) -> _Found:
        """The first that fits, its data on the device if that is possible at all."""
        reasons: list[str] = []
        for layout, streamed in self._rungs(layouts):
            where = " with the data streamed from the host" if streamed else ""
            # A group that the user gives is taken as it is; the device has the last word.
            limit = None if self._among.asked.group is not None else self._limit
            try:
                trial = try_layout(self._run_of, (layout, streamed), limit, seconds, enough)
                if streamed:
                    reasons.append("the data does not fit beside it and is streamed from the host")
                return _Found(layout, streamed, trial, "; ".join(reasons))
            except DoesNotFit as error:
                reasons = [_refusal(layout.group, where, error.needed, self._limit)]
        raise RunError(
            f"{reasons[0]}, and nothing smaller is left to try. Give a smaller batch_size or"
            " network, or another device."
        )

    def _rungs(self, layouts: list[Layout]) -> Iterator[tuple[Layout, bool]]:
        data = self._among.data
        if self._limit is None or data <= self._limit:
            yield from ((layout, False) for layout in layouts)
        if data:
            yield from ((layout, True) for layout in layouts)


def _refusal(group: int, where: str, needed: int | None, limit: int | None) -> str:
    who = f"{group} members together{where}" if group > 1 else f"one member alone{where}"
    if needed is None:
        return f"{who} ran out of the device's memory"
    return f"{who} would hold {amount(needed)} of the {amount(limit or 0)} that a device has for it"


def _earned(steps: int, trial: Trial, others: int, measure: bool | None) -> bool:
    """Whether measuring so many others costs little beside the training that it may shorten."""
    if measure is not None:
        return measure
    training = steps * (trial.seconds or 0.0)
    return others * (trial.beginning + 2 * _SECONDS) <= _WORTH * training


def _times(seconds: dict[Any, float]) -> str:
    each = ", ".join(f"{across} {1000 * s:.3g}" for across, s in seconds.items())
    return f"milliseconds of a member's step: {each}"


def _words(layout: Layout, *why: str) -> str:
    devices = "" if layout.mesh is None else f" on {layout.mesh.size} devices"
    if layout.group == 1:
        what = f"one member at a time{devices}"
    else:
        what = f"{layout.group} members at a time, {_HOW[layout.across]}{devices}"
    return f"layout: {what}" + (f" ({'; '.join(why)})" if why else "")
