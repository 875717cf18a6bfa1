"""The layout of a run in its folder, `layout.json`, for the run to take it again when it goes on: a
result is the same to the bit within a layout only.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import jax

from jaxtickets import members
from jaxtickets.engine.atomic import write_json
from jaxtickets.engine.auto_layout import Chosen
from jaxtickets.engine.candidates import AutoLayout
from jaxtickets.errors import PlanError
from jaxtickets.members import Layout

NAME = "layout.json"


def keep_layout(folder: Path, chosen: Chosen) -> None:
    """Write it down."""
    layout = chosen.layout
    mesh = None if layout.mesh is None else list(layout.mesh.devices.shape)
    found = {
        "group": layout.group,
        "across": layout.across,
        "steps_per_call": layout.steps_per_call,
        "mesh": mesh,
        "streamed": chosen.streamed,
        "why": chosen.why,
    }
    write_json(folder / NAME, found)


def kept_layout(folder: Path, asked: Layout | AutoLayout) -> Chosen | None:
    """The layout that the folder's run began with, on the devices that there are now; None where
    none is written down, or another one is asked for.
    """
    file = folder / NAME
    if isinstance(asked, Layout) or not file.exists():
        return None
    try:
        found = json.loads(file.read_bytes()[: 2**16])
        layout = Layout(found["group"], found["across"], found["steps_per_call"])
        sharded, streamed, why = found["mesh"] is not None, found["streamed"], found["why"]
        if not isinstance(streamed, bool) or not isinstance(why, str):
            raise TypeError
        if sharded and jax.device_count() > 1:
            mesh = members.member_mesh(layout.group, jax.devices())
            layout = Layout(layout.group, layout.across, layout.steps_per_call, mesh)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, PlanError):
        warnings.warn(
            f"{file} cannot be read; the layout is chosen anew, and if it is another one the"
            " tickets are the same only up to rounding.",
            stacklevel=4,
        )
        return None
    if asked.group not in (None, layout.group) or asked.across not in (None, layout.across):
        return None
    return Chosen(layout, streamed, why)
