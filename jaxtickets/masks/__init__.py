"""Masks: which weights a sparse subnetwork has, and how many, and which ones.

`trees` is what a mask is and what is done with one; its names are this room's. `sparsity` says how
many weights each layer keeps, `scores` which ones are worth keeping, `selection` keeps the best,
`structure` says what a mask may look like, `pruning` prunes by scores, `units` prunes neurons,
`children` cuts one network into several.
"""

from jaxtickets.masks.auditing import Audit, Revived, audit
from jaxtickets.masks.kernels import is_kernel, is_matrix
from jaxtickets.masks.pruning import prune_by_scores, prune_to
from jaxtickets.masks.rules import KERNELS, Rules, check_rules, prunable
from jaxtickets.masks.structure import NM, Blocks, Structure, Unstructured
from jaxtickets.masks.trees import (
    MaskError,
    apply,
    check,
    complement,
    count,
    counts,
    dense,
    density,
    full,
    iou,
    leaf_paths,
    pack,
    size,
    unpack,
)
from jaxtickets.masks.whole_units import Units

from jaxtickets.masks import saliency, scores, selection, sparsity, units  # isort: skip

__all__ = [
    "KERNELS",
    "NM",
    "Audit",
    "Blocks",
    "MaskError",
    "Revived",
    "Rules",
    "Structure",
    "Units",
    "Unstructured",
    "apply",
    "audit",
    "check",
    "check_rules",
    "complement",
    "count",
    "counts",
    "dense",
    "density",
    "full",
    "iou",
    "is_kernel",
    "is_matrix",
    "leaf_paths",
    "pack",
    "prunable",
    "prune_by_scores",
    "prune_to",
    "saliency",
    "scores",
    "selection",
    "size",
    "sparsity",
    "units",
    "unpack",
]
