"""Loss and accuracy on the plane through three networks' weights: a parent and two children."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.dataset import Dataset
from jaxtickets.errors import EvaluationError
from jaxtickets.evaluation.landscape import joined, scorer
from jaxtickets.tickets.ensemble import TicketEnsemble
from jaxtickets.tickets.ticket import Ticket

PyTree = Any


def plane(
    tickets: TicketEnsemble,
    i: int,
    j: int,
    k: int,
    test: Any,
    *,
    points: int = 11,
    margin: float = 0.25,
    recalibrate: Dataset | None = None,
    batch_size: int = 500,
) -> dict[str, Any]:
    """Scores of the networks on the plane through three tickets' weights.

    Whether three networks lie in one basin of the loss: the parent of a Prune and Tune ensemble and
    two of its children, say.

    A weight is there where any of the three tickets has it, so between them networks are denser
    than they are. Ticket i lies at (0, 0), j on the first axis, k above it; distances are those of
    the weights.

    Args:
      tickets: the ensemble.
      i, j, k: which of its tickets.
      test: a `Dataset`, an `EvaluationStream`, or a pair (x, y) as the network takes it.
      points: how many along each side of the grid, 2 or more; `points`^2 networks are evaluated,
        and the three.
      margin: how far the grid goes beyond the three, as a share of their extent.
      recalibrate: training data, from which the batch statistics of every point are estimated anew
        (`TicketEnsemble.recalibrate`). None: they are mixed as the weights are within the triangle
        of the three; outside of it those of its nearest mixture are taken, since a variance is
        never negative.
      batch_size: examples per forward pass.

    Returns:
      `{"x", "y"}`, the places along both axes, floats [points]; `{"loss", "accuracy"}`, rows of
      the grid, [points] for each y; and "corners", for i, j and k in turn `{"ticket", "x", "y",
      "loss", "accuracy"}`. Loss: NLL in nats.

    Raises:
      EvaluationError: a ticket that there is not, or the same twice; weights on one line; networks
        of different shapes; fewer than two points; a negative margin; a regression; labels that
        cannot be evaluated.
      DataError: examples that the network cannot take.

    References:
      Garipov et al. 2018, arXiv:1802.10026, section 3 and appendix (planes through three networks).

    >>> import jaxtickets as jt
    >>> init = lambda key, x: ({"w": jnp.eye(2)}, {})
    >>> apply = lambda params, state, x, train, key: (x @ params["w"], state)
    >>> task = jt.classification((init, apply), num_classes=2)
    >>> x, whole = np.eye(2, dtype=np.float32), {"w": np.ones((), bool)}
    >>> corners = [0 * x, 2 * x, x[::-1]]
    >>> tickets = [jt.Ticket({"w": w}, whole, {}, {}) for w in corners]
    >>> three = TicketEnsemble(task, tickets, jax.ShapeDtypeStruct((2,), jnp.float32))
    >>> found = plane(three, 0, 1, 2, (x, np.array([0, 1])), points=2, margin=0.0)
    >>> [[round(corner[axis], 3) for axis in "xy"] for corner in found["corners"]]
    [[0.0, 0.0], [2.828, 0.0], [0.0, 1.414]]
    >>> found["accuracy"]  # along the second axis the classes are exchanged
    [[0.5, 1.0], [0.0, 1.0]]
    """
    if len({i, j, k}) < 3:
        raise EvaluationError(f"k: got {i}, {j} and {k}, wanted three tickets.")
    if isinstance(points, bool) or not isinstance(points, int) or points < 2:
        raise EvaluationError(f"points: got {points!r}, wanted an integer of 2 or more.")
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 <= margin < np.inf:
        raise EvaluationError(f"margin: got {margin!r}, wanted a share of 0 or more.")
    corners = joined(tickets, i=i, j=j, k=k)
    score = scorer(tickets, test, recalibrate, batch_size)
    places = _places(corners)
    xs, ys = (_grid(places[:, axis], points, margin) for axis in (0, 1))
    # of the vectors from i to j and from i to k: what a step along each axis is
    steps = np.linalg.inv(places[1:])
    grid = [[score(_mixed(corners, np.array([x, y]) @ steps)) for x in xs] for y in ys]
    return {
        "x": xs.tolist(),
        "y": ys.tolist(),
        "loss": [[loss for loss, _ in row] for row in grid],
        "accuracy": [[right for _, right in row] for row in grid],
        "corners": [
            {"ticket": number, "x": float(x), "y": float(y), "loss": loss, "accuracy": right}
            for number, (x, y), (loss, right) in zip(
                (i, j, k), places, map(score, corners), strict=True
            )
        ],
    }


def _places(corners: tuple[Ticket, ...]) -> np.ndarray:
    """Where the three lie in the plane, float64 [3, 2]: at 0, on the first axis, above it."""
    origin, *others = (jax.tree.leaves(corner.params) for corner in corners)

    def inner(a: list[Any], b: list[Any]) -> float:
        differences = (
            [
                np.asarray(x, np.float64) - np.asarray(o, np.float64)
                for x, o in zip(xs, origin, strict=True)
            ]
            for xs in (a, b)
        )
        return sum(float(np.vdot(x, y)) for x, y in zip(*differences, strict=True))

    u, v = others
    length = inner(u, u) ** 0.5
    along = inner(u, v) / length if length else 0.0
    above = max(inner(v, v) - along**2, 0.0) ** 0.5
    if not length or above <= 1e-6 * length:
        raise EvaluationError(
            "k: the three tickets' weights lie on one line, through which there is no one plane."
        )
    return np.array([[0.0, 0.0], [length, 0.0], [along, above]])


def _grid(places: np.ndarray, points: int, margin: float) -> np.ndarray:
    low, high = places.min(), places.max()
    beyond = margin * (high - low)
    return np.linspace(low - beyond, high + beyond, points)


def _mixed(corners: tuple[Ticket, ...], shares: np.ndarray) -> Ticket:
    """The network at i + shares[0] (j - i) + shares[1] (k - i)."""
    weights = np.array([1 - shares.sum(), *shares])
    within = np.maximum(weights, 0)
    within /= within.sum()

    def mix(weights: np.ndarray) -> Any:
        def of(*leaves: Any) -> np.ndarray:
            arrays = [np.asarray(leaf) for leaf in leaves]
            if not jnp.issubdtype(arrays[0].dtype, jnp.floating):
                return arrays[int(weights.argmax())]  # a count has no middle
            mixed = sum(w * a.astype(np.float64) for w, a in zip(weights, arrays, strict=True))
            return np.asarray(mixed).astype(arrays[0].dtype)

        return of

    union = jax.tree.map(
        lambda *masks: np.asarray(np.logical_or.reduce(np.broadcast_arrays(*masks))),
        *(corner.mask for corner in corners),
    )
    params = jax.tree.map(mix(weights), *(corner.params for corner in corners))
    state = jax.tree.map(mix(within), *(corner.model_state for corner in corners))
    return Ticket(params, union, state, {})
