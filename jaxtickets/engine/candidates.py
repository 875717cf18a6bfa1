"""The layouts that a run can have: what is asked for, and what plan, data and devices allow."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxtickets import members
from jaxtickets.dataset import Dataset, Stream
from jaxtickets.engine import checks as run_checks
from jaxtickets.engine.device_memory import bytes_of
from jaxtickets.engine.digests import digest_of
from jaxtickets.engine.traces import Traced
from jaxtickets.engine.versions import versions
from jaxtickets.errors import PlanError
from jaxtickets.members import ACROSS, Across, Layout
from jaxtickets.messages import checks
from jaxtickets.plan import Plan
from jaxtickets.tracing.jaxprs import operations

check = checks.Checks(PlanError)


@dataclasses.dataclass(frozen=True)
class AutoLayout:
    """A layout that is chosen when the run begins, but for what is said here.

    On a CPU members train one after another. On an accelerator they are mapped where the network
    has convolutions and vmapped where it has none; as many train together, up to eight, as fit its
    memory, which is tried before the run begins. Where the run is long enough to earn it, the ways
    across members are measured and the fastest is taken; what was measured is kept in
    ~/.cache/jaxtickets/layouts.json by device, network, batch and versions. What is chosen is told,
    written into the run folder, and taken again when the run goes on.

    Args:
      group: how many members train together; None for as many as fit.
      across: "unroll", "vmap" or "map"; None for the best.
      measure: True measures in any case, on a CPU too; False never; None where it pays.
      memory: bytes of a device that the run may use; None for what the environment variable
        JAXTICKETS_DEVICE_MEMORY says (such as 12GiB), or else the device's own.

    >>> AutoLayout(group=4, measure=True)
    AutoLayout(group=4, across=None, measure=True, memory=None)
    """

    group: int | None = None
    across: Across | None = None
    measure: bool | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        if self.group is not None:
            check.positive_int("AutoLayout: group", self.group)
        if self.across is not None:
            check.choice("AutoLayout: across", self.across, ACROSS)
        if self.measure is not None:
            check.flag("AutoLayout: measure", self.measure)
        if self.memory is not None:
            check.positive_int("AutoLayout: memory", self.memory, "bytes, ", most=2**63 - 1)


class Candidates(NamedTuple):
    """What a run's layout may be chosen from.

    Args:
      asked: what the user says.
      layouts: for every way across, the likeliest first, its layouts: the largest group first.
      steps: of all networks of the run together.
      data: bytes of a data set that can lie on the device.
      key: makes what a measurement is kept by.
    """

    asked: AutoLayout
    layouts: dict[Across, list[Layout]]
    steps: int
    data: int
    key: Callable[[], str]


def check_asked(layout: Any, plan: Plan, examples: int) -> Layout | AutoLayout:
    """What is asked for, checked as far as that can be without the network.

    Raises:
      PlanError: it is no layout.
      ValueError, DataError: it fits not the plan, or not the examples.
    """
    if layout is not None and not isinstance(layout, Layout | AutoLayout):
        raise PlanError(
            "layout is a jt.Layout, such as jt.Layout(3, 'vmap'), a jt.AutoLayout, or None for the"
            f" automatic one; got {checks.shown(layout)}."
        )
    if isinstance(layout, Layout):
        run_checks.check_layout(plan, layout)
        run_checks.check_batch(plan, examples, layout)
        return layout
    run_checks.check_batch(plan, examples, Layout(1, "unroll"))  # with more devices: _layouts
    return layout or AutoLayout()


def candidates(
    asked: Layout | AutoLayout, plan: Plan, data: Dataset | Stream, traced: Traced
) -> Candidates:
    """The layouts to choose from; one that is given is the only one.

    Raises:
      ValueError, DataError: the one group size that is asked for fits not the plan, or not the
        examples.
    """
    layouts = _layouts(asked, plan, data, traced)
    size = bytes_of((data.x, data.y)) if isinstance(data, Dataset) else 0
    steps = plan.all_steps(len(data) // plan.batch_size)
    key = functools.partial(_measured_by, plan, traced, layouts)
    if isinstance(asked, Layout):
        asked = AutoLayout(asked.group, asked.across, measure=False)
    return Candidates(asked, layouts, steps, size, key)


def _layouts(
    asked: Layout | AutoLayout, plan: Plan, data: Dataset | Stream, traced: Traced
) -> dict[Across, list[Layout]]:
    if isinstance(asked, Layout):
        return {asked.across: [asked]}
    networks = 1 if plan.sequential else plan.copies(len(plan.phases))
    sizes = members.group_sizes(networks, min(plan.width, networks))
    if asked.group is not None:
        sizes = [min(asked.group, networks)]
    found: dict[Across, list[Layout]] = {}
    order: list[Across] = _likeliest(traced) if asked.across is None else [asked.across]
    if sizes == [1] and asked.across is None:  # all are the same to one member
        order = ["unroll"] if "unroll" in order else order[:1]
    refusal: ValueError | None = None
    for across in order:
        # A CPU gains nothing by copies of a step in one program, which take long to compile.
        alone = across == "unroll" and members.one_cpu()
        alone = alone and asked.group is None and asked.across is None
        for size in [1] if alone else sizes:
            layout = members.on_all_devices(size, across)
            try:
                run_checks.check_layout(plan, layout)
                run_checks.check_batch(plan, len(data), layout)
            except ValueError as error:
                refusal = error
            else:
                found.setdefault(across, []).append(layout)
    if not found and refusal is not None:
        raise refusal
    return found


def _likeliest(traced: Traced) -> list[Across]:
    """The ways across members, the one that is probably fastest first.

    A convolution with a kernel for every member is a grouped one when it is vmapped, which on a GPU
    takes three times as long as the members one after another. Matrix products gain by it.
    """
    if members.one_cpu():
        return ["unroll", "vmap", "map"]
    if jax.default_backend() == "cpu":  # those of several hosts
        return ["vmap", "map"]
    convolves = "conv_general_dilated" in operations(traced.programs["train"])
    order: list[Across] = ["map", "vmap"] if convolves else ["vmap", "map"]
    return order if jax.device_count() > 1 else [*order, "unroll"]


def _measured_by(plan: Plan, traced: Traced, layouts: dict[Across, list[Layout]]) -> str:
    """What a measurement of layouts depends on, as a digest: devices, versions, network, batch,
    groups and training.
    """
    training = next(phase for phase in plan.phases if phase.trains_with is not None)
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    how = repr((getattr(training, "evolve", None), training.trains_with, plan.batch_size))
    groups = repr({across: [one.group for one in each] for across, each in layouts.items()})
    return digest_of(traced.programs["train"], devices, repr(versions()), how, groups)
