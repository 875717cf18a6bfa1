"""The layout of a run in its folder, `layout.json`, for the run to take it again when it goes on: a
result is the same to the bit within a layout only.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path

import jax

from jaxtickets import members
from jaxtickets.engine.atomic import write_json
from jaxtickets.engine.auto_layout import Chosen
from jaxtickets.engine.candidates import AutoLayout
from jaxtickets.engine.failing import told
from jaxtickets.members import Layout

NAME = "layout.json"


def keep_layout(folder: Path, chosen: Chosen, going_on: bool) -> None:
    """Write it down, unless that of the run which is gone on with is there already.

    Raises:
      RunError: the disk does not let it be written.
    """
    file, layout = folder / NAME, chosen.layout
    if going_on and _read(file) is not None:
        return
    mesh = None if layout.mesh is None else list(layout.mesh.devices.shape)
    found = {
        "group": layout.group,
        "across": layout.across,
        "steps_per_call": layout.steps_per_call,
        "mesh": mesh,
        "streamed": chosen.streamed,
        "why": chosen.why,
    }
    with told(f"{file} cannot be written", "Nothing was trained by this call; run again then."):
        write_json(file, found)


def kept_layout(folder: Path, asked: Layout | AutoLayout) -> Chosen | None:
    """The layout that the folder's run began with, on the devices that there are now; None where
    none is written down, or another one is asked for.
    """
    file = folder / NAME
    if isinstance(asked, Layout) or not file.exists():
        return None
    found = _read(file)
    if found is None:
        warnings.warn(
            f"{file} cannot be read; the layout is chosen anew, and if it is another one the"
            " tickets are the same only up to rounding.",
            stacklevel=4,
        )
        return None
    layout = found.layout
    if asked.group not in (None, layout.group) or asked.across not in (None, layout.across):
        return None
    return found


def _read(file: Path) -> Chosen | None:
    """What is written there; None where it cannot be right."""
    try:
        found = json.loads(file.read_bytes()[: 2**16])
        layout = Layout(found["group"], found["across"], found["steps_per_call"])
        streamed, why = found["streamed"], found["why"]
        if not isinstance(streamed, bool) or not isinstance(why, str):
            return None
        several = jax.process_count() > 1  # whose devices train as one, whatever there was before
        if (found["mesh"] is not None or several) and jax.device_count() > 1:
            across = "vmap" if layout.across == "unroll" else layout.across
            mesh = members.member_mesh(layout.group, jax.devices())
            layout = dataclasses.replace(layout, across=across, mesh=mesh)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return Chosen(layout, streamed, why)
