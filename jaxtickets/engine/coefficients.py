"""The L1 coefficients of a training phase's penalty, for a group of members."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxtickets import masks
from jaxtickets.engine.run import Group, Run
from jaxtickets.engine.state import of_one
from jaxtickets.engine.steps import random_coefficients
from jaxtickets.plan import L1

PyTree = Any


def l1_coefficients(run: Run, group: Group, penalty: L1 | None, params: PyTree) -> PyTree:
    """l of the penalty, a tree like the group's params; nothing without a penalty.

    They follow from the members' keys, or from tickets that are collected, so no checkpoint holds
    them.
    """
    if penalty is None:
        return {}
    one = of_one(params)
    if penalty.on == "random":
        args, both = (group.keys, params), (True, True)
        static = (run.task, penalty.share)
        program = run.programs.over_members(
            random_coefficients, static, args, both, group.layout, runs_once=True
        )
        made = program(*args)
    elif penalty.on == "all":
        may = masks.prunable(one, run.task.prunable)
        made = jax.tree.map(lambda m: np.full(len(group), m, np.float32), may)
    else:
        earlier = run.masks_before(group.networks[0].lineage)
        mean = mean_of_masks(earlier, one, run.task.prunable)
        made = jax.tree.map(lambda m: m[None], mean)
    return group.place(made)


def mean_of_masks(
    earlier: list[PyTree], params: PyTree, rules: masks.Rules = masks.KERNELS
) -> PyTree:
    """How often each prunable weight survives in `earlier` masks: float32 in [0, 1].

    0 everywhere if there are none. A leaf that a mask marks dense survives whole, and leaves that
    may not be pruned get one 0.

    >>> earlier = [{"w": np.array([[True, False]])}, {"w": np.array([[True, True]])}]
    >>> mean_of_masks(earlier, {"w": np.ones((1, 2))})["w"].tolist()
    [[1.0, 0.5]]
    """

    def mean(may: bool, param: Any, *each: Any) -> np.ndarray:
        times = np.zeros(param.shape if may else (), np.float32)
        for mask in each if may else ():
            times += mask
        return times / np.float32(max(1, len(each)))

    return jax.tree.map(mean, masks.prunable(params, rules), params, *earlier)
