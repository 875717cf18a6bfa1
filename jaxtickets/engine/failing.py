"""What a failure of the disk is called: one sentence, with what was being done and how to go on."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from pathlib import Path

from jaxtickets.errors import RunError

_WORDS = {
    errno.ENOSPC: "no space is left on its disk; free some",
    errno.EDQUOT: "your quota of its disk is used up; free some",
    errno.EROFS: "its disk can only be read; give an out folder that can be written",
    errno.EACCES: "permission is denied; give an out folder that you may write",
    errno.EPERM: "it is not permitted; give an out folder that you may write",
    errno.ENOTDIR: "a part of that path is a file; give another out folder",
    errno.EEXIST: "a file of that name is there; move it away, or give another out folder",
    errno.ENAMETOOLONG: "the name is too long; give a shorter out folder",
    errno.ELOOP: "its links go round in a circle; give another out folder",
    errno.EMFILE: "too many files are open; close some, or raise the limit (ulimit -n)",
}


def reason(error: BaseException) -> str:
    """Why something could not be done, on one line, from an error of Python or of the checkpoints'
    writer.
    """
    number = error.errno if isinstance(error, OSError) else None
    text = str(error).strip() or type(error).__name__
    if number is None:  # (which has the number in its text)
        found = re.search(r"os_error_code='(\d+)'", text)
        number = int(found[1]) if found else None
    if number in _WORDS:
        return _WORDS[number]
    if isinstance(error, MemoryError):
        return "memory ran out"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    line = text.splitlines()[0].rstrip(".")
    return line if len(line) <= 200 else line[:197] + "..."


@contextlib.contextmanager
def told(what: str, then: str = "") -> Iterator[None]:
    """Where the disk fails, `RunError`: `what` cannot be done, why, and `then`."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{what}: {reason(error)}.{then and ' ' + then}") from None


def read(file: Path) -> bytes:
    """The file's bytes. What is not there is damage, and `FileNotFoundError`; what cannot be read
    is none, and `RunError`.
    """
    try:
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{file} is gone") from None
    except (OSError, MemoryError) as error:
        raise RunError(
            f"{file} cannot be read: {reason(error)}. Nothing was changed; run again when it can."
        ) from None
