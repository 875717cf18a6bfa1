"""How W members lie on the hardware: one after another, unrolled into one program, vmapped, mapped
one after another inside one program, or sharded over a mesh.

Member i computes the same thing in every layout, from its own key: the same draws, the same data in
the same order. To the bit it is the same within a layout: where `across` and the size of its group
are, it does not matter which the others are. A group of another size is another program, which the
compiler may fuse otherwise; vmapped, a batched product adds up in another order as well. So results
of different layouts agree but for rounding at first; after a while a weight near a threshold falls
on its other side, a mask differs, and the networks are different draws of the same experiment.

What differs besides is speed, and it differs by backend and network: vmapped, a convolution becomes
a grouped one, which is several times slower per member on a CPU and on a GPU alike, while many
small matrix products become one large one; mapped, every member has plain convolutions and the
memory of one member's activations, but XLA's CPU backend is slow inside its loops. On a CPU members
run one after another.
"""

from jaxtickets.members.across import member, over_members, stack
from jaxtickets.members.keys import member_keys
from jaxtickets.members.layout import (
    ACROSS,
    Across,
    Layout,
    default_layout,
    for_members,
    group_sizes,
    groups,
    member_mesh,
    on_all_devices,
    one_cpu,
)
from jaxtickets.members.placing import fetch, own, own_rows, place, place_rows, sharding

__all__ = [
    "ACROSS",
    "Across",
    "Layout",
    "default_layout",
    "fetch",
    "for_members",
    "group_sizes",
    "groups",
    "member",
    "member_keys",
    "member_mesh",
    "on_all_devices",
    "one_cpu",
    "over_members",
    "own",
    "own_rows",
    "place",
    "place_rows",
    "sharding",
    "stack",
]
