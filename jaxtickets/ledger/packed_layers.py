"""What a Pack leaves of a network, as far as one knows which blocks exist."""

from __future__ import annotations

import math

import jax
import numpy as np

from jaxtickets.ledger.phase_costs import BeforePhase, Costs, phase_cost
from jaxtickets.masks import packing
from jaxtickets.masks.packable import packable
from jaxtickets.masks.sparsity import prunable_shapes
from jaxtickets.messages.pytrees import leaf_paths
from jaxtickets.plan import Pack


@phase_cost.register
def _(phase: Pack, before: BeforePhase) -> Costs:
    """The packed network, of masks made of the phase's blocks that lie at random."""
    task, params, state, x_spec, _ = before.network
    why = packable(task.apply, params, state, x_spec, task.prunable, phase.structure)
    params, state = packing.unpacked_shapes(params, state)
    leaves, tree = jax.tree.flatten(params)
    block = (phase.structure.rows, phase.structure.columns)
    packed, tables = [], {}
    for path, leaf in zip(leaf_paths(params), leaves, strict=True):
        shape = leaf.shape
        if why.get(path) == "":
            height, width = (n // m for n, m in zip(shape, block, strict=True))
            counts = likely_counts(height, width, before.kept[path] / math.prod(shape))
            count, length = packing.fewest([counts])
            if count * length <= phase.at_most * height * width:
                tables[path] = jax.ShapeDtypeStruct((height, width), bool)
                shape = (count, length, *block)
        packed.append(jax.ShapeDtypeStruct(shape, leaf.dtype))
    params, state = tree.unflatten(packed), packing.with_tables(state, tables)
    prunable = prunable_shapes(params, task.prunable)
    network = before.network._replace(params=params, model_state=state, prunable=prunable)
    return Costs(before.kept, network=network)


def likely_counts(height: int, width: int, density: float) -> np.ndarray:
    """How many blocks the columns of a layer have that keeps each with the same probability, int
    [width]: the quantiles of the binomial distribution.

    >>> likely_counts(32, 8, 0.25).tolist()
    [4, 6, 7, 8, 8, 9, 10, 12]
    """
    k = np.arange(height + 1)
    inside = min(max(density, 1e-12), 1 - 1e-12)
    ways = math.lgamma(height + 1) - np.array([math.lgamma(n + 1) for n in k])
    ways -= np.array([math.lgamma(height - n + 1) for n in k])
    chance = np.exp(ways + k * math.log(inside) + (height - k) * math.log1p(-inside))
    return np.searchsorted(np.cumsum(chance), (np.arange(width) + 0.5) / width).clip(0, height)
