"""Errors for people: each says what was given, what is allowed and what to type instead."""

from __future__ import annotations


class DataError(ValueError):
    """Data that cannot be used: not readable, of the wrong shape, out of range, or too little of it."""


class PlanError(ValueError):
    """A plan that cannot be run."""


class RunError(RuntimeError):
    """A run folder that belongs to another run."""


class NonFiniteLoss(FloatingPointError):
    """A loss became NaN or infinite; names phase, step and member. Tickets collected before are kept."""


class TicketError(ValueError):
    """A network or ticket that does not fit where it is given."""


class TicketFileError(ValueError):
    """A ticket file that is damaged, was tampered with, or belongs to another network."""


class CheckpointError(ValueError):
    """A pretrained checkpoint that is not there, is damaged, or is of another network; names the file and the tensor."""


class ReportError(ValueError):
    """Results that cannot be reported: damaged, too large, incomplete, or of things that do not go together; names what and where."""
