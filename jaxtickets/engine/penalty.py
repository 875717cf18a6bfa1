"""The coefficients of a training phase's penalty, for a group of members."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxtickets import masks, members
from jaxtickets.engine.lineage import random_coefficients
from jaxtickets.ensemble import Ticket
from jaxtickets.penalties import L1

if TYPE_CHECKING:
    from jaxtickets.engine.group import GroupRun

PyTree = Any


def coefficients(group: GroupRun, penalty: L1 | None) -> PyTree:
    """l of the penalty, a tree like the group's params; nothing without a penalty.

    They follow from the members' keys, or from tickets that are collected, so no checkpoint holds them.
    """
    if penalty is None:
        return {}
    task, params = group.run.task, group.state["lineage"].params
    if penalty.on == "random":

        def draw(key: jax.Array, params: PyTree) -> PyTree:
            return random_coefficients(task, penalty, key, params)

        args = (group.keys, params)
        made = group.program(("penalty", penalty.share), draw, (True, True), args, runs_once=True)(*args)
    elif penalty.on == "all":
        width = len(group.who)
        made = jax.tree.map(lambda may: np.full(width, may, np.float32), masks.prunable(_of_one(params), task.prunable))
    else:
        made = jax.tree.map(lambda mean: mean[None], mean_of_masks(_earlier(group), _of_one(params), task.prunable))
    return members.place(made, group.layout, "member")


def mean_of_masks(earlier: list[PyTree], params: PyTree, rules: masks.Rules = masks.KERNELS) -> PyTree:
    """How often each prunable weight survives in `earlier` masks: float32 in [0, 1]; 0 everywhere if there are none.

    A leaf that a mask marks dense survives whole, and leaves that may not be pruned get one 0.

    >>> mean = mean_of_masks([{"w": np.array([[True, False]])}, {"w": np.array([[True, True]])}], {"w": np.ones((1, 2))})
    >>> mean["w"].tolist()
    [[1.0, 0.5]]
    """

    def one(may: bool, param: Any, *each: Any) -> np.ndarray:
        times = np.zeros(param.shape if may else (), np.float32)
        for mask in each if may else ():
            times += mask
        return times / np.float32(max(1, len(each)))

    return jax.tree.map(one, masks.prunable(params, rules), params, *earlier)


def _earlier(group: GroupRun) -> list[PyTree]:
    """The masks of the last tickets of all lineages before the group's."""
    last: dict[int, int] = {}
    for index, one in enumerate(group.tickets):
        info = one.info if isinstance(one, Ticket) else one
        if info["lineage"] < group.who[0].lineage:
            last[info["lineage"]] = index
    found = [group.tickets[index] for index in last.values()]
    return [(one if isinstance(one, Ticket) else group.read_ticket(last[one["lineage"]])).mask for one in found]


def _of_one(params: PyTree) -> PyTree:
    """Shapes of one member's params."""
    return jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape[1:], p.dtype), params)
