"""Tables as text that standard output can show: with lines where it is UTF-8, and else in plain
ASCII.
"""

from __future__ import annotations

import io
import sys
from typing import Any

from rich.console import Console


class _Page(io.StringIO):
    """What rich draws on: of the encoding of standard output, by which rich chooses its lines."""

    @property
    def encoding(self) -> str:
        return getattr(sys.stdout, "encoding", None) or "ascii"


def printed(renderable: Any) -> str:
    """What rich makes of it, without colours, at most 100 columns wide.

    >>> printed("one line")
    'one line'
    """
    console = Console(
        file=_Page(), width=100, color_system=None, force_terminal=False, force_jupyter=False
    )
    with console.capture() as captured:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in captured.get().rstrip().splitlines())
