"""Loss and accuracy along the straight line between two tickets' weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import masks
from jaxtickets.dataset import Dataset
from jaxtickets.errors import EvaluationError
from jaxtickets.evaluation.checks import check_labels
from jaxtickets.evaluation.metrics import accuracy, mean_log_proba, nll
from jaxtickets.tickets.ensemble import TicketEnsemble
from jaxtickets.tickets.packing import unpacked
from jaxtickets.tickets.ticket import Ticket

PyTree = Any


def line(
    tickets: TicketEnsemble,
    i: int,
    j: int,
    test: Any,
    *,
    points: int = 11,
    recalibrate: Dataset | None = None,
    batch_size: int = 500,
) -> dict[str, Any]:
    """Scores of the networks with weights `(1 - t) w_i + t w_j`, t = 0 ... 1.

    Whether two tickets lie in one basin of the loss.

    A weight between the ends is there where it is in either ticket: the mask is the union of the
    two, so a point in between is denser than both ends unless their masks are equal, and its
    weights that only one ticket has are shrunk by 1 - t or t.

    Args:
      tickets: the ensemble.
      i, j: which of its tickets; the line goes from i to j.
      test: a `Dataset`, an `EvaluationStream`, or a pair (x, y) as the network takes it.
      points: how many, the ends included, evenly spaced; at least 2.
      recalibrate: training data, from which the batch statistics of every point, the ends included,
        are estimated anew (`TicketEnsemble.recalibrate`). None: between the ends they are
        interpolated like the weights. Where there are batch statistics a barrier may be theirs
        alone (Jordan et al. 2023).
      batch_size: examples per forward pass.

    Returns:
      `{"t", "loss", "accuracy", "density"}`, lists of floats (loss: NLL in nats, density: of the
      prunable weights; of a ticket of several heads both scores are those of its mean prediction),
      and three numbers: "barrier", the largest excess of the loss over the line from one end's loss
      to the other's; "error_barrier", the same of the share of wrong labels; and "instability", the
      largest excess of that share over the mean of the two ends'. None of them is negative.

    Raises:
      EvaluationError: a ticket that there is not; networks of different shapes; fewer than two
        points; a regression; labels that cannot be evaluated.
      DataError: examples that the network cannot take.

    References:
      Frankle et al. 2020, arXiv:1912.05671, section 2 ("instability"); Entezari et al. 2022,
      arXiv:2110.06296, section 2 ("barrier"); Jordan et al. 2023, arXiv:2211.08403.

    Differs:
      Frankle et al. compare networks of one mask. In "instability" the ends count as points, so it
      is at least half of what they differ by.

    >>> import jaxtickets as jt
    >>> init = lambda key, x: ({"w": jnp.eye(2)}, {})
    >>> apply = lambda params, state, x, train, key: (x @ params["w"], state)
    >>> task = jt.classification((init, apply), num_classes=2)
    >>> x, whole = np.eye(2, dtype=np.float32), {"w": np.ones((), bool)}
    >>> tickets = [jt.Ticket({"w": w}, whole, {}, {}) for w in (x, -x)]
    >>> two = TicketEnsemble(task, tickets, jax.ShapeDtypeStruct((2,), jnp.float32))
    >>> line(two, 0, 1, (x, np.array([0, 1])), points=3)["accuracy"]  # half way classes are equal
    [1.0, 0.5, 0.0]
    """
    first, last = joined(tickets, i=i, j=j)
    if isinstance(points, bool) or not isinstance(points, int) or points < 2:
        raise EvaluationError(
            f"points: got {points!r}, wanted an integer of 2 or more: the ends are two."
        )
    score = scorer(tickets, test, recalibrate, batch_size)
    way = np.linspace(0, 1, points)
    losses, accuracies, densities = [], [], []
    for t in way:
        point = _between(first, last, float(t))
        point_loss, point_accuracy = score(point)
        losses.append(point_loss)
        accuracies.append(point_accuracy)
        densities.append(masks.density(point.mask))
    loss, error = np.array(losses), 1 - np.array(accuracies)
    return {
        "t": way.tolist(),
        "loss": losses,
        "accuracy": accuracies,
        "density": densities,
        "barrier": _excess(loss, way),
        "error_barrier": _excess(error, way),
        "instability": float(np.max(error) - (error[0] + error[-1]) / 2),
    }


def scorer(
    tickets: TicketEnsemble, test: Any, recalibrate: Dataset | None, batch_size: int
) -> Callable[[Ticket], tuple[float, float]]:
    """A function of a network of that task: its loss (NLL in nats) and accuracy on the test set.

    Raises:
      EvaluationError: a regression; labels that cannot be evaluated.
    """
    if tickets.task.num_classes is None:
        raise EvaluationError(
            f"tickets: {tickets.task.name} is a regression, which has no accuracy."
        )
    x, y = _parts(test)
    labels = check_labels(y, len(y), tickets.task.num_classes)

    def score(network: Ticket) -> tuple[float, float]:
        alone = dataclasses.replace(tickets, tickets=(network,))
        if recalibrate is not None:
            alone = alone.recalibrate(recalibrate)
        log_p = mean_log_proba(alone.member_log_proba(x, batch_size=batch_size))
        return nll(log_p, labels), accuracy(log_p, labels)

    return score


def joined(tickets: TicketEnsemble, **numbers: int) -> tuple[Ticket, ...]:
    """The tickets of those numbers, if weights between them are weights of one network.

    Raises:
      EvaluationError: a ticket that there is not, or networks of different shapes.
    """
    for name, which in numbers.items():
        if isinstance(which, bool) or not isinstance(which, int) or not 0 <= which < len(tickets):
            raise EvaluationError(
                f"{name}: got {which!r}, wanted a ticket's number, 0 to {len(tickets) - 1}."
            )
    i, *others = numbers.values()
    networks = {number: unpacked(tickets.tickets[number]) for number in (i, *others)}
    for j in others:
        _check_shapes(networks, i, j)
    return tuple(networks[number] for number in (i, *others))


def _check_shapes(networks: Mapping[int, Ticket], i: int, j: int) -> None:
    ends = networks[i], networks[j]
    first, other = ({"params": ticket.params, "model_state": ticket.model_state} for ticket in ends)
    if jax.tree.structure(first) != jax.tree.structure(other):
        raise EvaluationError(
            f"tickets: {i} and {j} are of different networks; no line joins them."
        )
    for path, a, b in zip(
        masks.leaf_paths(first), jax.tree.leaves(first), jax.tree.leaves(other), strict=True
    ):
        if np.shape(a) != np.shape(b):
            raise EvaluationError(
                f"tickets: {path} has the shape {list(np.shape(a))} in {i} and {list(np.shape(b))}"
                f" in {j}; no line joins them. Take them as they were before shrink."
            )


def _parts(test: Any) -> tuple[Any, Any]:
    """The inputs and the labels of a test set."""
    if isinstance(test, Dataset) or hasattr(test, "in_order"):
        return test, test.y
    if isinstance(test, (tuple, list)) and len(test) == 2:
        return test[0], test[1]
    raise EvaluationError(
        f"test: got {type(test).__name__}, wanted a Dataset, an EvaluationStream or a pair (x, y)."
    )


def _between(a: Ticket, b: Ticket, t: float) -> Ticket:
    """The network at place t of the line; at the ends the tickets themselves."""
    if t in (0.0, 1.0):
        return b if t else a

    def mix(x: Any, y: Any) -> np.ndarray:
        x, y = np.asarray(x), np.asarray(y)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x if t < 0.5 else y  # a count has no middle
        return ((1 - t) * x.astype(np.float64) + t * y.astype(np.float64)).astype(x.dtype)

    union = jax.tree.map(lambda m, n: np.asarray(np.logical_or(m, n)), a.mask, b.mask)
    return Ticket(
        jax.tree.map(mix, a.params, b.params),
        union,
        jax.tree.map(mix, a.model_state, b.model_state),
        {},
    )


def _excess(values: np.ndarray, way: np.ndarray) -> float:
    """How far the highest value is above the straight line between the ends."""
    above = values - ((1 - way) * values[0] + way * values[-1])
    above[[0, -1]] = 0
    return float(above.max())
