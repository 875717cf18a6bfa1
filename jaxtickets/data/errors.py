"""What can be wrong with data: it is malformed, or it is not there."""

from __future__ import annotations


class DataError(ValueError):
    """Data that is there but cannot be used; the message names the file or argument, what was found and what would do."""


class DataNotFoundError(DataError, FileNotFoundError):
    """Data that is nowhere; the message names every place looked at and what to do next."""
