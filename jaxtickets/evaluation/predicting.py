"""Predictions of a test set, made once however many parts of an evaluation ask for them."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from jaxtickets.errors import EvaluationError
from jaxtickets.evaluation.metrics import restrict


class Tickets(Protocol):
    """The protocol of an ensemble, as `evaluate` takes it.

    Of one whose networks give H predictions each it also reads `heads`, H.
    """

    @property
    def masks(self) -> Any:
        """A mask tree for each network, M / H of them, or None."""
        ...

    def member_log_proba(self, x: Any, /, *, batch_size: Any = ...) -> Any:
        """Log-probabilities [M, B, C] of a data set or of inputs."""
        ...


class _Remembered(NamedTuple):
    tickets: Any
    test: Any
    predictions: np.ndarray


_remembered: contextvars.ContextVar[_Remembered | None] = contextvars.ContextVar(
    "predictions of the test set", default=None
)


@contextlib.contextmanager
def remembering(tickets: Tickets, test: Any, predictions: np.ndarray) -> Iterator[None]:
    """A context in which `predict` of these tickets and test set gives these predictions."""
    token = _remembered.set(_Remembered(tickets, test, predictions))
    try:
        yield
    finally:
        _remembered.reset(token)


def predict(
    tickets: Tickets, data: Any, batch_size: int | None = None, like: Any = None
) -> np.ndarray:
    """Log-probabilities of every member, as a part of an evaluation takes them.

    Args:
      tickets: an ensemble.
      data: a `Dataset`, an `EvaluationStream` or a pair `(x, y)`.
      batch_size: examples at a time; None leaves it to the ensemble.
      like: whose `classes` predictions are restricted to, if it has any; None for those of `data`.

    Returns:
      Log-probabilities [M, B, C], or [M, B, K] of K classes. Within an `evaluate` those of its test
      set are not made anew.

    Raises:
      EvaluationError: `data` that is neither, or without examples.
    """
    like = data if like is None else like
    remembered = _remembered.get()
    if remembered is not None and remembered.tickets is tickets and remembered.test is data is like:
        return remembered.predictions
    x, y = inputs_and_labels(data)
    if np.size(y) == 0:
        raise EvaluationError("test: got no examples, wanted at least one.")
    options = {} if batch_size is None else {"batch_size": batch_size}
    predictions = tickets.member_log_proba(x, **options)
    classes = getattr(like, "classes", None)
    return np.asarray(predictions) if classes is None else restrict(predictions, classes)


def inputs_and_labels(test: Any, name: str = "test") -> tuple[Any, Any]:
    """The inputs and the labels of a test set.

    Raises:
      EvaluationError: neither a data set, nor a stream in order, nor a pair.
    """
    if (hasattr(test, "x") or hasattr(test, "in_order")) and hasattr(test, "y"):
        return test, test.y
    if isinstance(test, (tuple, list)) and len(test) == 2:
        return test[0], test[1]
    size = f" of {len(test)}" if isinstance(test, (tuple, list)) else ""
    raise EvaluationError(
        f"{name}: got {type(test).__name__}{size}, wanted a Dataset, an EvaluationStream or a pair"
        " (x, y)."
    )
