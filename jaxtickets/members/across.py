"""A step of one member, made one of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from jaxtickets.members.layout import Across

PyTree = Any


def over_members(
    step: Callable[..., PyTree],
    mapped: Sequence[bool],
    across: Across,
    mesh: Mesh | None = None,
) -> Callable[..., PyTree]:
    """`step`, written for one member, for arguments and results with a leading member axis.

    Args:
      step: a pure function of one member.
      mapped: for every argument, whether it has a member axis; the others are shared.
      across: "unroll", "vmap" or "map".
      mesh: over whose axis "member" the members lie; None for one device.
    """
    if across == "vmap":
        stepped = jax.vmap(step, in_axes=tuple(0 if m else None for m in mapped))
    else:
        stepped = (_unrolled if across == "unroll" else _in_a_loop)(step, mapped)
    if mesh is None:
        return stepped
    # Every row of devices takes its own members and knows of no others. Left to itself XLA
    # computes a grouped convolution, which is one over all members, on every device in full. The
    # data axis stays its own affair. Unchecked, because a network's scan may begin with zeros.
    member = PartitionSpec("member")
    return jax.shard_map(
        stepped,
        mesh=mesh,
        in_specs=tuple(member if m else PartitionSpec() for m in mapped),
        out_specs=member,
        axis_names={"member"},
        check_vma=False,
    )


def _unrolled(step: Callable[..., PyTree], mapped: Sequence[bool]) -> Callable[..., PyTree]:
    """A copy of the step for every member, in one program."""

    def unrolled(*args: PyTree) -> PyTree:
        count = next(
            jax.tree.leaves(arg)[0].shape[0] for arg, m in zip(args, mapped, strict=True) if m
        )
        outs = [
            step(*(member(arg, i) if m else arg for arg, m in zip(args, mapped, strict=True)))
            for i in range(count)
        ]
        return stack(outs) if count > 1 else jax.tree.map(lambda a: a[None], outs[0])

    return unrolled


def _in_a_loop(step: Callable[..., PyTree], mapped: Sequence[bool]) -> Callable[..., PyTree]:
    """One member after another in a loop of the program.

    A member's branches stay branches: their predicates have no member axis.
    """

    def looped(*args: PyTree) -> PyTree:
        def one(own: list[PyTree]) -> PyTree:
            rest = iter(own)
            return step(*(next(rest) if m else arg for arg, m in zip(args, mapped, strict=True)))

        return jax.lax.map(one, [arg for arg, m in zip(args, mapped, strict=True) if m])

    return looped


def member(tree: PyTree, index: int) -> PyTree:
    """Member `index` of a tree whose leaves have a leading member axis."""
    return jax.tree.map(lambda a: a[index], tree)


def stack(trees: Sequence[PyTree]) -> PyTree:
    """Trees of single members as one tree with a leading member axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
