"""What can be wrong with data: it is malformed, or it is not there."""

from __future__ import annotations

from jaxtickets.errors import DataError as DataError


class DataNotFoundError(DataError, FileNotFoundError):
    """Data that is nowhere; the message names every place looked at and what to do next."""
