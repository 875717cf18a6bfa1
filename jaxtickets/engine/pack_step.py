"""What Pack does: layers made of blocks hold those that exist, and nothing else."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxtickets import members
from jaxtickets.engine.events import Message
from jaxtickets.engine.phase_steps import Steps, run_phase
from jaxtickets.engine.resizing import resized, stacked
from jaxtickets.engine.run import Group, Run, optimizer_of_moments
from jaxtickets.engine.state import GroupState, Weights, of_one
from jaxtickets.masks import packing
from jaxtickets.masks.packable import packable, packings
from jaxtickets.masks.packing import Packing
from jaxtickets.masks.structure import Blocks
from jaxtickets.plan import Pack

PyTree = Any


class Repacked(NamedTuple):
    """One network packed anew: `before` are the tables by which it is packed already."""

    before: dict[str, np.ndarray]
    now: Packing

    def leaf(self, number: int, array: Any) -> Any:
        """What takes the place of an array like leaf `number` of the params."""
        table = self.before.get(self.now.paths[number])
        whole = array if table is None else packing.unpack(np.asarray(array), table)
        return self.now.leaf(number, whole)

    def params(self, tree: PyTree) -> PyTree:
        """What takes the place of a tree like the params, or of a mask."""
        return packing.map_leaves(self.leaf, tree)

    def ever_active(self, tree: PyTree) -> PyTree:
        """As it was: what was ever active may lie outside the blocks, so it stays whole."""
        return tree

    def weights(self, weights: Weights) -> Weights:
        """What takes the place of params and model state."""
        state = packing.with_tables(weights.model_state, self.now.tables)
        return Weights(self.params(weights.params), state)


@run_phase.register
def pack(
    phase: Pack, run: Run, group: Group, index: int, state: GroupState, done: int = 0
) -> Steps:
    """Every network of the group packed, in one shape."""
    task, weights = run.task, of_one(state.lineage.weights)
    params, model_state = weights
    why = packable(task.apply, params, model_state, run.x_spec, task.prunable, phase.structure)
    mask, tables = members.fetch((state.lineage.mask, packing.tables_in(state.lineage.model_state)))
    before = [members.member(tables, i) for i in range(len(group))]
    masks = [packing.unpacked(members.member(mask, i), before[i]) for i in range(len(group))]
    fits = [path for path, reason in why.items() if not reason]
    now, others = packings(masks, fits, phase.structure, phase.at_most)
    changes = [Repacked(*both) for both in zip(before, now, strict=True)]
    if _is_packed_so(weights, now[0], phase.structure):
        yield state, Message(f"Pack: nothing to pack{_rest(why | others)}")
        return
    optimizer = optimizer_of_moments(run.plan, group, index)
    lineage, remembered = members.fetch((state.lineage, state.remembered))
    packed = [resized(members.member(lineage, i), optimizer, c) for i, c in enumerate(changes)]
    kept = {
        name: stacked([c.weights(members.member(old, i)) for i, c in enumerate(changes)])
        for name, old in remembered.items()
    }
    message = Message(_what_is_left(now[0]) + _rest(why | others))
    lineage = group.place(stacked(packed))
    yield state._replace(lineage=lineage, remembered=group.place(kept)), message


def _is_packed_so(weights: Weights, now: Packing, structure: Blocks) -> bool:
    """Whether those kernels are packed already, into as many strips of as many blocks."""
    leaves = zip(now.paths, jax.tree.leaves(weights.params), strict=True)
    tables = packing.tables_in(weights.model_state)
    present = {path: tuple(leaf.shape) for path, leaf in leaves if path in tables}
    block = (structure.rows, structure.columns)
    return present == {path: (*shape, *block) for path, shape in now.shapes.items()}


def _what_is_left(now: Packing) -> str:
    each = (
        f"{path.rpartition('/')[0] or path} {count * length} of {now.tables[path].size} blocks"
        for path, (count, length) in now.shapes.items()
    )
    return f"Pack: {', '.join(each) or 'nothing is packed'}"


def _rest(why: dict[str, str]) -> str:
    """Which layers stay as they are, and why."""
    left = (
        f"{path.rpartition('/')[0] or path}, {reason}" for path, reason in why.items() if reason
    )
    text = "; ".join(left)
    return f". Not packed: {text}" if text else ""
