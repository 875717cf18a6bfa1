"""Downloads one file to the disk: whole and checked, or not at all."""

from __future__ import annotations

import hashlib
import http.client
import sys
import urllib.request
from pathlib import Path

from jaxtickets.errors import DataError
from jaxtickets.files.whole import whole_file

_CHUNK = 2**18
_LIMIT = 2**30


def fetch(url: str, md5: str, target: Path, timeout: float = 10.0) -> Path:
    """Download a file whole and checked, or raise an error and leave nothing behind.

    It gets its name only when its md5 is right. The progress is shown on a terminal.

    Args:
      url: where from.
      md5: of the whole file, in hexadecimal. It tells damage, not malice: the publisher gives no
        stronger one.
      target: where to; its folder is made.
      timeout: seconds without an answer after which it is given up.

    Returns:
      `target`.

    Raises:
      OSError: no network, no such file, no space, no permission; `urllib.error.URLError` is one.
      DataError: the md5 differs, or the file is larger than 1 GiB.
    """
    from rich.console import Console
    from rich.progress import wrap_file

    digest, received = hashlib.md5(usedforsecurity=False), 0
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer, whole_file(target) as file:
            size = getattr(answer, "length", None) or 0
            look = {"console": Console(stderr=True), "disable": not sys.stderr.isatty()}
            with wrap_file(answer, size, description=target.name, **look) as shown:
                while chunk := shown.read(_CHUNK):
                    received += len(chunk)
                    if received > _LIMIT:
                        raise DataError(
                            f"{url}: more than {_LIMIT:,} bytes; this is not the published file"
                        )
                    digest.update(chunk)
                    file.write(chunk)
            if digest.hexdigest() != md5:
                raise DataError(
                    f"{url}: {received:,} bytes with md5 {digest.hexdigest()}, {md5} expected:"
                    " damaged on the way, or another file"
                )
    except http.client.HTTPException as error:
        raise OSError(f"the connection broke: {error!r}") from error
    return target
