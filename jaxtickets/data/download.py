"""One file from the network to the disk: whole and checked, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from jaxtickets.data.errors import DataError

_CHUNK = 2**18
_LIMIT = 2**30


def fetch(url: str, md5: str, target: Path, timeout: float = 10.0) -> Path:
    """Downloads a file, unless something fails.

    The bytes go to a temporary file beside `target` and get its name only when their md5 is right, so a run that is
    killed leaves no half file, and two runs at once do not meet. The progress is shown on a terminal when rich is
    installed.

    Args:
      url: where from.
      md5: of the whole file, in hexadecimal. It tells damage, not malice: the publisher gives no stronger one.
      target: where to; its folder is made.
      timeout: seconds without an answer after which it is given up.

    Returns:
      `target`.

    Raises:
      OSError: no network, no such file, no space, no permission; `urllib.error.URLError` is one.
      DataError: the md5 differs, or the file is larger than 1 GiB.
    """
    digest, done = hashlib.md5(usedforsecurity=False), 0
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer, _temporary(target) as file:
            with _progress(target.name, getattr(answer, "length", None) or 0) as advance:
                while chunk := answer.read(_CHUNK):
                    done += len(chunk)
                    if done > _LIMIT:
                        raise DataError(f"{url}: more than {_LIMIT:,} bytes; this is not the published file")
                    digest.update(chunk)
                    file.write(chunk)
                    advance(len(chunk))
            if digest.hexdigest() != md5:
                raise DataError(f"{url}: {done:,} bytes with md5 {digest.hexdigest()}, {md5} expected: damaged on the way, or another file")
            file.close()
            os.chmod(file.name, 0o644)
            os.replace(file.name, target)
    except http.client.HTTPException as error:
        raise OSError(f"the connection broke: {error!r}") from error
    return target


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[tempfile._TemporaryFileWrapper[bytes]]:
    """A file beside `target`, gone afterwards unless it was renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(prefix=target.name, suffix=".part", dir=target.parent, delete=False) as file:
        try:
            yield file
        finally:
            Path(file.name).unlink(missing_ok=True)


@contextlib.contextmanager
def _progress(name: str, size: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere; gives the function that moves it."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    except ImportError:
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(name, total=size or None)
        yield lambda count: bar.advance(task, count)
