"""Shows the doctests of docstrings as code: mkdocstrings knows them in "Examples" only."""

from __future__ import annotations

import re
from typing import Any

import griffe

# A prompt and what follows it, to the next empty line.
_DOCTEST = re.compile(r"^>>> .*\n(?:.+\n)*(?:\n*>>> .*\n(?:.+\n)*)*", re.MULTILINE)


def fenced(text: str) -> str:
    """The text of a docstring with its doctests between fences.

    >>> print(fenced("One.\\n\\n>>> 1 + 1\\n2"))
    One.
    <BLANKLINE>
    ```pycon
    >>> 1 + 1
    2
    ```
    """
    shown = _DOCTEST.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", f"{text}\n")
    return re.sub(r" *# doctest: .*", "", shown).replace("<BLANKLINE>", "").rstrip("\n")


class Doctests(griffe.Extension):
    """Fences the doctests of everything that is read."""

    def on_instance(self, *, obj: griffe.Object | griffe.Alias, **kwargs: Any) -> None:
        """Change an object's docstring, if it has one."""
        if not obj.is_alias and obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)
