"""How a message quotes an argument, or what a file holds: in a few words, whatever it is.

The value of a pickle may hold one list a million times over, so that writing it out takes longer
than anybody waits; a name in a file may have a hundred million letters. Nothing here looks at more
than the beginning.
"""

from __future__ import annotations

import reprlib
from typing import Any

import jax
import jax.core
import numpy as np

from jaxtickets.errors import cut as cut


class _Short(reprlib.Repr):
    """Two levels of the first four things, sixty letters each (a hundred of an object)."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 2
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = (
            self.maxdeque
        ) = self.maxarray = 4
        self.maxstring, self.maxother = 60, 100

    def repr1(self, x: Any, level: int) -> str:
        if isinstance(x, jax.Array | np.ndarray) and (x.ndim or isinstance(x, jax.core.Tracer)):
            return f"{x.dtype}{list(x.shape)}"
        if isinstance(x, jax.Array | np.ndarray | np.generic):
            return str(x)
        return super().repr1(x, level)

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if abs(x) < 10**30 else f"<an integer of {x.bit_length():,} bits>"

    def repr_bytes(self, x: bytes, level: int) -> str:
        return (
            repr(x)
            if len(x) <= self.maxstring
            else f"{x[: self.maxstring // 2]!r}... ({len(x):,} bytes)"
        )

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:  # (the library's sorts all keys)
        if level <= 0 and x:
            return "{...}"
        pairs = [
            f"{self.repr1(key, level - 1)}: {self.repr1(x[key], level - 1)}"
            for key, _ in zip(x, range(self.maxdict))
        ]
        return "{" + ", ".join(pairs + ["..."] * (len(x) > len(pairs))) + "}"


_SHORT = _Short()


def shown(value: Any, most: int = 100) -> str:
    """The value as Python writes it, or the beginning of that; of an array its dtype and shape.

    >>> shown({"a": [[1, [2, [3]]]] * 10}), shown(10**5000)
    ("{'a': [[...], [...], [...], [...], ...]}", '<an integer of 16,610 bits>')
    >>> shown(np.zeros((3, 4))), shown(np.float32(0.5))
    ('float64[3, 4]', '0.5')
    """
    return cut(_SHORT.repr(value), most)


def told(error: BaseException) -> str:
    """What an error of a library says, on one line: it may quote a whole file.

    >>> told(ValueError("no array\\n  at all")), told(KeyError("w" * 1000))[:20]
    ('no array at all', "KeyError: 'wwwwwwwww")
    """
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    try:
        said = " ".join(str(error)[:10_000].split())
    except (ValueError, RecursionError):  # integers of thousands of digits have no text
        said = ""
    named = f"{type(error).__name__}{': ' if said else ''}{said}"
    return cut(
        named if not said or isinstance(error, KeyError | AttributeError | TypeError) else said, 300
    )
