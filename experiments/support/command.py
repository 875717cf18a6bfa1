"""The command line of every script: flags are read and checked, errors become one line.

What is wrong ends the command with exit status 2; SIGTERM ends it with 75 where it can be gone on
with (see `jaxtickets.Preempted`).
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import io
import json
import os
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import jax
import tyro
from rich.console import Console
from support import flags, hosts

import jaxtickets as jt
from jaxtickets import evaluation
from jaxtickets.errors import ReportError
from jaxtickets.files import paths

C = TypeVar("C", bound=Any)
LONGEST = 2000
"""Characters of an error that are shown: a file may say anything of itself."""
# Errors that are the user's to mend.
USER_ERRORS = (
    flags.FlagError,
    jt.CheckpointError,
    jt.DataError,
    jt.ExportError,
    jt.MaskError,
    jt.PlanError,
    jt.RunError,
    ReportError,
    evaluation.EvaluationError,
    jt.TicketError,
    jt.TicketFileError,
    jt.NonFiniteLoss,
    ImportError,
    OSError,
    MemoryError,
)
# What stands for a sign that the terminal's encoding lacks.
PLAIN = {"±": "+-", "…": "...", "×": "x", "↑": "^", "↓": "v", "•": "*", "·": "."}
PLAIN |= dict.fromkeys("–—─━═╭╮╰╯┌┐└┘├┤┬┴┼", "-") | dict.fromkeys("│┃║", "|")


def main(
    work: Callable[[C], object], presets: Mapping[str, C] | type[C], description: str | None
) -> None:
    """Run a command from its flags to its end.

    Args:
      work: what it does with the flags.
      presets: flags' defaults by `--preset` (the first where none is named), or the class of the
        flags.
      description: for `--help`.
    """
    plain_streams()
    with one_line_errors():
        config = parse(presets, description or "")
        if getattr(config, "distributed", False):
            hosts.join(config.wait)
            work(config)
            hosts.end()
        else:
            work(config)


def parse(
    presets: Mapping[str, C] | type[C], description: str, words: Sequence[str] | None = None
) -> C:
    """The flags of the command line, or of those words.

    `--preset` chooses the defaults (the first if not given), every other flag replaces one.

    Raises:
      FlagError: no value for a flag, an empty one, or one that cannot be.
      SystemExit: after `--help`.
    """
    words = sys.argv[1:] if words is None else words
    for previous, word in zip(["", *words], words, strict=False):
        if word == "" or (word.startswith("--") and word.endswith("=")):
            flag = word[:-1] or (previous if previous.startswith("-") else "an argument")
            raise flags.FlagError(f"{flag} is empty; give it a value, or leave it out.")
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            if isinstance(presets, type):
                config: Any = tyro.cli(presets, args=words, description=description)
            else:
                first = next(iter(presets))
                default = presets.get(chosen("preset", first, words), presets[first])
                config = tyro.cli(
                    type(default), args=words, default=default, description=description
                )
    except SystemExit as ended:
        if not ended.code:
            raise
        raise flags.FlagError(_first_sentence(complaint.getvalue())) from None
    flags.check(config)
    return config


def chosen(flag: str, default: str, words: Sequence[str] | None = None) -> str:
    """The value of a flag on the command line, read before the others' defaults are known."""
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chooser.add_argument(f"--{flag}", nargs="?", default=default, const=default)
    return getattr(chooser.parse_known_args(words)[0], flag)


def _first_sentence(complaint: str) -> str:
    """What the parser says is wrong, as one sentence.

    Its title, its box and what it repeats of the help text are left out.
    """
    parts: list[list[str]] = [[]]
    for line in complaint.splitlines():
        text = line.strip(" │")
        if not text.strip("─-"):
            parts += [[]]
        elif not line.startswith(("╭", "╰")):
            parts[-1].append(text)
    paragraphs = [" ".join(part) for part in parts if part]
    # where there is no box, the title is a part of its own
    text = paragraphs[0 if "╭" in complaint else 1]
    return f"{text.removeprefix('Error parsing ').rstrip('.')}. See --help."


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns errors that are the user's to mend into one line and an exit status.

    An interruption becomes a word on resuming.
    """
    try:
        yield
    except (
        BrokenPipeError
    ):  # `| head` has seen enough; what the interpreter still holds back goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except USER_ERRORS as error:
        _fail(error)
    except RuntimeError as error:  # JAX's own, where memory is short or another host is gone
        if "RESOURCE_EXHAUSTED" in str(error):
            _fail(error)
        if not jax.distributed.is_initialized() or not isinstance(
            error, jax.errors.JaxRuntimeError
        ):
            raise
        hosts.leave(error)
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; the same command resumes from the last checkpoint.")
        raise SystemExit(130) from None


def _fail(error: BaseException) -> NoReturn:
    text = " ".join(str(error).split()) or "no more is known of it"
    if type(error).__module__ == "builtins" and isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}{f': {error.filename}' if error.filename else ''}"
    elif isinstance(error, MemoryError):
        text = "memory is short; take a smaller network, batch or ensemble"
    where = f"host {jax.process_index()}: " if jax.distributed.is_initialized() else ""
    kind = f"{where}[bold red]{type(error).__name__}[/]: "
    Console(stderr=True).print(kind, end="", highlight=False)
    shown = text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
    Console(stderr=True).print(shown, markup=False, highlight=False, soft_wrap=True)
    raise SystemExit(2) from None


@contextlib.contextmanager
def planning() -> Iterator[None]:
    """Turns an error about a value that a plan or network refuses into a `PlanError`."""
    try:
        yield
    except (jt.PlanError, jt.DataError, jt.MaskError, jt.CheckpointError):
        raise
    except (ValueError, OverflowError) as error:
        raise jt.PlanError(str(error)) from None


def out_folder(out: str | Path, first: str | None = None, others: Sequence[str] = ()) -> Path:
    """The absolute path of the folder that a script writes to, checked to be writable.

    Args:
      out: what --out says.
      first: the JSON file that the script writes before the others; None where `fit` looks at what
        is in the folder.
      others: files that it overwrites, if they are of the same kind.

    Raises:
      FlagError: no path, one that cannot be written to, or files of those names that no script
        wrote.
    """
    try:
        folder = paths.given(out, "--out")
    except ValueError as error:
        raise flags.FlagError(str(error)) from None
    writable(folder)
    theirs = [name for name in (first, *others) if name and first and (folder / name).exists()]
    try:
        ours = not theirs or "command" in json.loads((folder / str(first)).read_bytes())
    except (OSError, ValueError, TypeError, RecursionError):
        ours = False
    if not ours:
        raise flags.FlagError(
            f"--out {folder} has a {theirs[0]} that no experiment wrote; give a folder that is"
            " empty or not there yet."
        )
    return folder


def writable(folder: Path, flag: str = "--out") -> Path:
    """The folder, if files can be written there; the check leaves nothing behind.

    Raises:
      FlagError: a path that is no folder, below a file, too long, or not to be written to; a full
        disk.
    """
    missing = []
    try:
        for path in (folder, *folder.parents):
            if path.exists():
                break
            missing.append(path)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".") as probe:
            probe.write(bytes(4096))
            probe.flush()
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise flags.FlagError(
            f"{flag} {folder}: {reason}. Give a folder that can be written to."
        ) from None
    finally:
        for path in missing:  # deepest first
            with contextlib.suppress(OSError):
                path.rmdir()
    return folder


def writable_file(file: Path | None, flag: str) -> None:
    """Check that a file can be written where a flag says, if it says where.

    Raises:
      FlagError: a folder, or a file in a folder that is not there or not to be written to.
    """
    if file is None:
        return
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise flags.FlagError(f"{flag} {file}: give a file in a folder that is there.")
    writable(file.absolute().parent, flag)
    if file.exists() and not os.access(file, os.W_OK):
        raise flags.FlagError(f"{flag} {file}: it is there and cannot be written to.")


def plain_streams() -> None:
    """Let standard output and error take every sign, whatever their encoding.

    What an encoding lacks is written plainly.
    """
    codecs.register_error("plain", lambda error: (_plainly(error), getattr(error, "end", 0)))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not (stream.encoding or "").lower().startswith(
            "utf"
        ):
            stream.reconfigure(errors="plain")


def _plainly(error: UnicodeError) -> str:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(
        PLAIN.get(sign, sign if sign.isascii() else "?")
        for sign in decomposed
        if not unicodedata.combining(sign)
    )


def shown_command(argv: Sequence[str]) -> str:
    """The command as somebody else would type it, from the root of a clone.

    The folders of this machine are left out.

    Paths that matter keep their last part: which network, which vocabulary.

    >>> script = "/home/me/jaxtickets/experiments/edst_cifar.py"
    >>> shown_command([script, "--data-dir", "/data", "--seed", "1", "--out=/tmp/x"])
    'python experiments/edst_cifar.py --data-dir DIR --seed 1'
    >>> words = ["--model", "/models/bert-mini", "--tokenizer=/models/vocab.txt"]
    >>> shown_command(["multi_ticket_glue.py", *words])
    'python experiments/multi_ticket_glue.py --model bert-mini --tokenizer=vocab.txt'
    """
    shown = ["python", f"experiments/{Path(argv[0]).name}"]
    hidden = {"--out": "", "--data-dir": "DIR", "--imagenet-a": "DIR", "--parent": "FILE"}
    words = iter(argv[1:])
    for word in words:
        flag, _, value = word.partition("=")
        if flag in hidden:
            if not value:
                next(words, None)
            shown += [flag, hidden[flag]] if hidden[flag] else []
        else:
            path = value or word
            shown.append(
                word.removesuffix(path) + Path(path).name if path.startswith("/") else word
            )
    return " ".join(shown)
