"""Errors for people: each says what was given, what is allowed and what to type instead."""

from __future__ import annotations


def cut(text: str, most: int = 200) -> str:
    """The text, without its middle if it is longer than `most` letters.

    >>> cut("a" * 50 + "b" * 50, 20)
    'aaaaaaaaaa ... bbbbb'
    """
    return (
        text
        if len(text) <= most
        else f"{text[: most - most // 4 - 5]} ... {text[len(text) - most // 4 :]}"
    )


class _AboutFiles(ValueError):
    """An error that quotes what a file holds: its message stays readable, whatever that is."""

    def __init__(self, message: str = "", *more: object) -> None:
        super().__init__(cut(str(message), 4000), *more)


class DataError(_AboutFiles):
    """Data that cannot be used: not readable, of the wrong shape, out of range, or too little of
    it.
    """


class DataNotFoundError(DataError, FileNotFoundError):
    """Data that is nowhere; the message names every place looked at and what to do next."""


class MaskError(ValueError):
    """A mask, a rule or a budget that cannot be."""


class TaskError(ValueError):
    """A network that would not be trained as it is meant: the flag that tells training from
    evaluation does not reach it.
    """


class PlanError(ValueError):
    """A plan that cannot be run."""


class RunError(RuntimeError):
    """A run folder that belongs to another run."""


class NonFiniteLoss(FloatingPointError):
    """A loss became NaN or infinite; names phase, step and member. Tickets collected before are
    kept.
    """


class Preempted(SystemExit):
    """The machine was wanted back (SIGTERM): the run is saved, and the same call goes on with it.

    Where nobody catches it the process ends with exit status 75: `EX_TEMPFAIL` of sysexits.h, a
    failure that passes, try again. (143 is what a shell shows of a process that SIGTERM killed,
    with nothing saved.)
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.code = 75


class TicketError(ValueError):
    """A network or ticket that does not fit where it is given."""


class TicketFileError(_AboutFiles):
    """A ticket file that is damaged, was tampered with, or belongs to another network."""


class ExportError(_AboutFiles):
    """An ensemble that cannot be exported as asked, or a file that holds no exported one; says
    what is allowed.
    """


class CheckpointError(_AboutFiles):
    """A pretrained checkpoint that is not there, is damaged, or is of another network; names the
    file and the tensor.
    """


class EvaluationError(ValueError):
    """Predictions, labels or masks that cannot be evaluated. Names the argument, what it got and
    what it wanted.
    """


class ReportError(_AboutFiles):
    """Results that cannot be reported: damaged, too large, incomplete, or of things that do not go
    together; names what and where.
    """
