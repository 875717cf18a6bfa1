"""Checks of texts on the host: values that mean nothing to a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxtickets.errors import DataError
from jaxtickets.models.masking import IGNORED
from jaxtickets.tracing.index_ranges import at


@dataclasses.dataclass(frozen=True)
class CheckTexts:
    """`Task.check` of texts: attention masks are 0 or 1, masked labels are tokens or -100.

    Token ids and types are row numbers of tables, which are checked of every network.

    Args:
      vocabulary: how many tokens there are.
    """

    vocabulary: int

    def __call__(self, x: Mapping[str, Any], name: str, first: int) -> None:
        """Raise `DataError` for the first value that is not allowed.

        Raises:
          DataError: names the first place that is not, and what is allowed.
        """
        mask, labels = x["attention_mask"], x.get("labels")
        refuse(
            mask,
            (mask != 0) & (mask != 1),
            f"{name}/attention_mask",
            first,
            "1 for a token that is seen and 0 for one that is not",
        )
        if labels is not None:
            wrong_labels = ((labels < 0) & (labels != IGNORED)) | (labels >= self.vocabulary)
            refuse(
                labels,
                wrong_labels,
                f"{name}/labels",
                first,
                f"a token from 0 to {self.vocabulary - 1}, or {IGNORED} where nothing is guessed",
            )


def refuse(values: np.ndarray, wrong: np.ndarray, name: str, first: int, allowed: str) -> None:
    """Raise `DataError` that names the first of the wrong values, if there are any."""
    places = np.argwhere(wrong)
    if len(places):
        row, *columns = places[0]
        more = f", and {len(places) - 1:,} more are wrong" if len(places) > 1 else ""
        raise DataError(
            f"{name}, {at((first + row, *columns))}, is {values[tuple(places[0])]}{more}; allowed"
            f" is {allowed}."
        )
