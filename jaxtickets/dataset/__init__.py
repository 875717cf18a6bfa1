"""Data sets and streams as types, and arrays made into them.

Where data come from is `jaxtickets.data`'s.
"""

from jaxtickets.dataset.types import Dataset, EvaluationStream, SeekableStream, Stream

__all__ = ["Dataset", "EvaluationStream", "SeekableStream", "Stream"]
