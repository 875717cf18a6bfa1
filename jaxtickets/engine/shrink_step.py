"""What Shrink does: a group's networks become the smaller ones without their dead units."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxtickets import members
from jaxtickets.engine.events import Message
from jaxtickets.engine.phase_steps import Steps, run_phase
from jaxtickets.engine.resizing import resized, stacked
from jaxtickets.engine.run import Group, Run, optimizer_of_moments
from jaxtickets.engine.state import GroupState, Weights, of_one
from jaxtickets.errors import MaskError
from jaxtickets.masks.cutting import cut, cut_shape, dead_units, staying_units, widths
from jaxtickets.masks.units import UnitTable
from jaxtickets.plan import Shrink

PyTree = Any


class Cut(NamedTuple):
    """What stays of a network: `units` of the whole one, and which of them stay, bool [U]."""

    units: UnitTable
    stays: np.ndarray

    def leaf(self, number: int, array: Any) -> Any:
        """What is left of an array like leaf `number` of the params."""
        return cut([self.units.params[number]], np.asarray(array), self.stays)

    def params(self, tree: PyTree) -> PyTree:
        """What is left of a tree like the params, or of a mask."""
        return cut(self.units.params, tree, self.stays)

    def ever_active(self, tree: PyTree) -> PyTree:
        """What is left of the weights that were ever active."""
        return self.params(tree)

    def weights(self, weights: Weights) -> Weights:
        """What is left of params and model state."""
        state = cut(self.units.model_state, weights.model_state, self.stays)
        return Weights(self.params(weights.params), state)


@run_phase.register
def shrink(
    phase: Shrink, run: Run, group: Group, index: int, state: GroupState, done: int = 0
) -> Steps:
    """Every network of the group without its dead units, in one shape."""
    try:
        units = run.units_of(of_one(state.lineage.weights))
    except MaskError:  # there were some when the run began
        yield state, Message("Shrink: nothing to cut out, every layer has one unit")
        return
    masks = members.fetch(state.lineage.mask)
    dead = [dead_units(units, members.member(masks, i)) for i in range(len(group))]
    stays = staying_units(units, dead, phase.multiple)
    if all(each.all() for each in stays):
        yield state, Message(_nothing(units, dead, phase.multiple))
        return
    cuts = [Cut(units, each) for each in stays]
    _check_one_shape(cuts)
    optimizer = optimizer_of_moments(run.plan, group, index)
    lineage, remembered = members.fetch((state.lineage, state.remembered))
    smaller = [resized(members.member(lineage, i), optimizer, c) for i, c in enumerate(cuts)]
    kept = {
        name: stacked([c.weights(members.member(weights, i)) for i, c in enumerate(cuts)])
        for name, weights in remembered.items()
    }
    lineage = group.place(stacked(smaller))
    message = Message(_what_is_left(units, stays[0]))
    yield state._replace(lineage=lineage, remembered=group.place(kept)), message


def _check_one_shape(cuts: list[Cut]) -> None:
    """Raise `MaskError` where one width of every group of units gives several shapes."""
    leaves = (*cuts[0].units.params, *cuts[0].units.model_state)
    for leaf in leaves:
        shapes = {cut_shape(leaf, c.stays) for c in cuts}
        if len(shapes) > 1:
            raise MaskError(
                f"Shrink: {leaf.path} comes out as {' and '.join(map(str, sorted(shapes)))} in"
                " networks that train together; train them one by one, with"
                " layout=jaxtickets.Layout(group=1)."
            )


def _nothing(units: UnitTable, dead: list[np.ndarray], multiple: int) -> str:
    few = max(int(each.sum()) for each in dead)
    if not few:
        return f"Shrink: nothing to cut out, all {len(units)} units are alive"
    return f"Shrink: nothing to cut out, {few} dead units fill widths up to multiples of {multiple}"


def _what_is_left(units: UnitTable, stays: np.ndarray) -> str:
    left = widths(units, stays)
    layers = ", ".join(
        f"{group[0].rpartition('/')[0] or group[0]} {before} to {after}"
        for group, before, after in zip(units.groups, units.sizes, left, strict=True)
        if before != after
    )
    return f"Shrink: {len(units)} units to {int(stays.sum())}: {layers}"
