"""The paths that users give, read in one place.

`~` is their home, and a relative path means what it meant when it was given.
"""

from __future__ import annotations

import os
from pathlib import Path


def given(path: str | os.PathLike[str], what: str = "the path") -> Path:
    """The path that a user meant, absolute.

    `~` is expanded, and a later `os.chdir` changes nothing.

    Args:
      path: as it was given; links in it are not followed.
      what: the argument's name, for messages.

    Raises:
      ValueError: it is no path, is empty, or begins with `~` where nobody's home is known.

    >>> given("runs/first") == Path.cwd() / "runs" / "first"
    True
    """
    try:
        text = os.fspath(path)
    except TypeError:
        raise ValueError(f"{what} is a path, as text or a pathlib.Path; got {path!r}.") from None
    if not isinstance(text, str) or "\0" in text:
        raise ValueError(f"{what} is a path, as text or a pathlib.Path; got {path!r}.")
    if not text.strip():
        raise ValueError(
            f"{what} is empty; name a file or folder, or give '.' for the working folder."
        )
    try:
        return Path(text).expanduser().absolute()
    except FileNotFoundError:
        raise ValueError(
            f"{what} is {text!r}, and the working folder that it starts from is gone; give an"
            " absolute path."
        ) from None
    except RuntimeError:
        raise ValueError(
            f"{what} is {text!r}, and there is no home folder here that ~ stands for; write the"
            " path out."
        ) from None


def in_home(path: str) -> Path | None:
    """`path`, which begins with `~`, as `given` has it.

    None where nobody's home is known: what is kept there is done without.
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        return None
