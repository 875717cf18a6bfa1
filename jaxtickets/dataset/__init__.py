"""Data sets and streams as types, and arrays made into them.

Where data come from is `jaxtickets.data`'s.
"""

from jaxtickets.dataset.types import Dataset, EvaluationStream, SeekableStream, SplitStream, Stream

__all__ = ["Dataset", "EvaluationStream", "SeekableStream", "SplitStream", "Stream"]
