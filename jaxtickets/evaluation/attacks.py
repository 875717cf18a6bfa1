"""Adversarial examples: images changed by little, along the gradient of a loss.

A member is one prediction: a ticket, or one head of a ticket whose network has several. Images are
attacked as they are stored, before `Dataset.prepare` standardises them, so a step means the same
for every network.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.dataset import Dataset
from jaxtickets.dataset.conversion import as_inputs
from jaxtickets.errors import EvaluationError
from jaxtickets.evaluation.checks import check_labels, numbers
from jaxtickets.messages import checks
from jaxtickets.messages.checks import is_int, is_number, shown
from jaxtickets.tickets.ensemble import TicketEnsemble
from jaxtickets.tracing.precision import in_32_bits

PyTree = Any
CRAFTED_AT_ONCE = 100  # examples: a gradient keeps every activation, which a prediction does not


def fgsm(
    tickets: TicketEnsemble,
    test: Dataset | tuple[Any, Any],
    *,
    on: int | None = None,
    step: float = 8 / 255,
    pixels: tuple[float, float] | None = None,
    batch_size: int = CRAFTED_AT_ONCE,
) -> np.ndarray:
    """Images after one step of the fast gradient sign method.

    `x + step (high - low) sign(dL/dx)`, clipped to low ... high, where L is the cross-entropy of
    the label y under the prediction attacked: member `on`'s, or the mean of all members'
    probabilities. A pixel whose gradient is 0 stays.

    Args:
      tickets: the ensemble.
      test: a `Dataset` of images (any array of floats or of uint8, [N, ...]), or a pair (x, y) as
        the network takes it.
      on: the member whose gradient it is, 0 ... M - 1; None for the ensemble. Head h of ticket t is
        member t H + h.
      step: share of the pixels' range.
      pixels: (low, high), that range in the units of x. None: 0 to `test.prepare.scale` where there
        is one (`Standardise`), to 255 where x is uint8, else to 1.
      batch_size: examples per gradient. It changes memory, not the result.

    Returns:
      float32 [N, ...], in the units of `test.x`: what `dataclasses.replace(test, x=...)` takes.

    Raises:
      EvaluationError: streams, tokens, regression, pixels outside of their range, a member that
        there is not, and a gradient that is 0 for every pixel of every example.

    References:
      Goodfellow et al. 2015, arXiv:1412.6572, section 4; Strauss et al. 2017, arXiv:1709.03423, for
      ensembles.

    >>> import jaxtickets as jt
    >>> init = lambda key, x: ({"w": jnp.eye(2)}, {})
    >>> apply = lambda params, state, x, train, key: (x @ params["w"], state)
    >>> task = jt.classification((init, apply), num_classes=2)
    >>> x, y = np.array([[0.5, 0.25]], np.float32), np.array([0])
    >>> ticket = jt.Ticket({"w": np.eye(2, dtype=np.float32)}, {"w": np.ones((), bool)}, {}, {})
    >>> tickets = TicketEnsemble(task, (ticket,), jax.ShapeDtypeStruct((2,), jnp.float32))
    >>> fgsm(tickets, (x, y), step=0.125).tolist()  # less of class 0, more of class 1
    [[0.375, 0.375]]
    """
    return craft(
        tickets,
        images_of(tickets, test, pixels),
        on,
        check_share("step", step),
        1,
        step,
        None,
        batch_size,
    )


def pgd(
    tickets: TicketEnsemble,
    test: Dataset | tuple[Any, Any],
    *,
    on: int | None = None,
    step: float = 2 / 255,
    steps: int = 10,
    radius: float = 8 / 255,
    key: jax.Array | None = None,
    pixels: tuple[float, float] | None = None,
    batch_size: int = CRAFTED_AT_ONCE,
) -> np.ndarray:
    """Images after several steps of `fgsm`, none of which moves a pixel by more than `radius`.

    Args:
      tickets, test, on, pixels, batch_size: as `fgsm`.
      step: of each, as a share of the pixels' range.
      steps: how many.
      radius: the largest change of a pixel, as a share of the range.
      key: where the images start: uniformly at random within the radius. None: at the images
        themselves.

    Returns:
      As `fgsm`.

    Raises:
      EvaluationError: as `fgsm`, and for no steps.

    References:
      Madry et al. 2018, arXiv:1706.06083, section 2.1; Kurakin et al. 2017, arXiv:1607.02533.
    """
    step, steps, radius = (
        check_share("step", step),
        check_steps(steps),
        check_share("radius", radius),
    )
    return craft(
        tickets, images_of(tickets, test, pixels), on, step, steps, radius, key, batch_size
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """The images that are attacked: the data, its pixels as float32, and their range."""

    data: Dataset
    x: np.ndarray
    low: float
    high: float


def images_of(tickets: Any, test: Any, pixels: tuple[float, float] | None) -> Images:
    """The images of a test set, checked."""
    if not isinstance(tickets, TicketEnsemble):
        raise EvaluationError(
            f"tickets: got {type(tickets).__name__}, wanted a TicketEnsemble: an attack needs the"
            " networks' gradients."
        )
    if tickets.task.num_classes is None:
        raise EvaluationError(
            f"tickets: {tickets.task.name} is a regression; an attack wants labels to lead away"
            " from."
        )
    if isinstance(test, (tuple, list)) and len(test) == 2:
        x, y = test
        test = Dataset(as_inputs(x), numbers(y, "y", "labels [B]"), tickets.task.num_classes)
    if hasattr(test, "in_order"):
        name = getattr(test, "name", type(test).__name__)
        raise EvaluationError(
            f"test: {name} is a stream, whose images come prepared; wanted a Dataset, attacked"
            " before it prepares."
        )
    if not isinstance(test, Dataset):
        raise EvaluationError(
            f"test: got {type(test).__name__}, wanted a Dataset of images or a pair (x, y)."
        )
    if not isinstance(test.x, np.ndarray | jax.Array):
        kind = type(test.x).__name__
        raise EvaluationError(
            f"test: x of {test.name} is a {kind} of arrays; wanted one array of images: only those"
            " have pixels."
        )
    if not (test.x.dtype == np.uint8 or jnp.issubdtype(test.x.dtype, jnp.floating)):
        raise EvaluationError(
            f"test: x of {test.name} is {test.x.dtype}; wanted uint8 or floats: a step between"
            " token ids means nothing."
        )
    if len(test) == 0:
        raise EvaluationError("test: got no examples, wanted at least one.")
    check_labels(test.y, len(test), tickets.task.num_classes)
    low, high = (0.0, _scale(test)) if pixels is None else _range(pixels)
    x = np.asarray(test.x, np.float32)
    least, most = float(x.min()), float(x.max())
    if not (low <= least and most <= high):
        raise EvaluationError(
            f"pixels: x of {test.name} is from {least:g} to {most:g}, outside of {low:g} to"
            f" {high:g}. Give pixels=(low, high), the range."
        )
    return Images(test, x, low, high)


def _scale(test: Dataset) -> float:
    return float(getattr(test.prepare, "scale", 255 if test.x.dtype == np.uint8 else 1))


def _range(pixels: Any) -> tuple[float, float]:
    try:
        low, high = map(float, pixels)
    except (TypeError, ValueError):
        low, high = 0.0, 0.0
    if not (np.isfinite([low, high]).all() and low < high):
        raise EvaluationError(
            f"pixels: got {shown(pixels)}, wanted (low, high), two numbers of which the first is"
            " smaller."
        )
    return low, high


def check_share(name: str, share: Any) -> float:
    """A share of the pixels' range as a float; an `EvaluationError` unless it is in (0, 1]."""
    if not is_number(share) or not 0 < share <= 1:
        raise EvaluationError(
            f"{name}: got {shown(share)}, wanted a share of the pixels' range, in (0, 1], such as"
            " 8 / 255."
        )
    return float(share)


def check_steps(steps: Any) -> int:
    """A number of steps; an `EvaluationError` unless it is an integer of 1 or more."""
    if not is_int(steps) or steps < 1:
        raise EvaluationError(f"steps: got {shown(steps)}, wanted an integer of 1 or more.")
    return steps


@in_32_bits
def craft(
    tickets: TicketEnsemble,
    images: Images,
    on: int | None,
    step: float,
    steps: int,
    radius: float,
    key: Any,
    batch_size: int,
) -> np.ndarray:
    """The attacked images; step and radius are shares of the pixels' range."""
    if not is_int(batch_size) or batch_size < 1:
        raise EvaluationError(
            f"batch_size: got {shown(batch_size)}, wanted an integer of 1 or more."
        )
    if key is not None:
        checks.Checks(EvaluationError).key("key", key)
    heads_by_ticket = _chosen(tickets, on)
    span = images.high - images.low
    reach = np.float32(radius * span)
    lowest, highest = (
        np.maximum(images.x - reach, images.low),
        np.minimum(images.x + reach, images.high),
    )
    x = images.x
    if key is not None:
        start = jax.random.uniform(key, x.shape, jnp.float32, -reach, reach)
        x = np.clip(x + np.asarray(start), lowest, highest)
    for _ in range(steps):
        gradient = _gradient(tickets, heads_by_ticket, images.data, x, batch_size)
        if not gradient.any():
            raise EvaluationError(
                f"test: the gradient is 0 for every pixel of {images.data.name}: its prepare"
                " rounds, or the network is sure of everything."
            )
        x = np.clip(x - np.float32(step * span) * np.sign(gradient), lowest, highest)
    return x


def _chosen(tickets: TicketEnsemble, on: int | None) -> dict[int, np.ndarray]:
    """The heads that are attacked, bool [H], by the number of their ticket."""
    if on is None:
        return {ticket: np.ones(tickets.heads, bool) for ticket in range(len(tickets))}
    members = len(tickets) * tickets.heads
    number = on if is_int(on) else -1
    if not 0 <= number < members:
        raise EvaluationError(
            f"on: got {shown(on)}, wanted a member's number, 0 to {members - 1}, or None for the"
            " ensemble."
        )
    return {number // tickets.heads: np.arange(tickets.heads) == number % tickets.heads}


def _gradient(
    tickets: TicketEnsemble,
    heads_by_ticket: dict[int, np.ndarray],
    data: Dataset,
    x: np.ndarray,
    batch_size: int,
) -> np.ndarray:
    """Gradient of log p(y) with respect to the pixels, float32 [N, ...].

    p is the mean of the attacked members' probabilities.

    Ticket by ticket, so that no more than one is on the device: with p = sum_t p_t it is sum_t (p_t
    / p) d log p_t, and the weights p_t / p are kept in log space.
    """
    run = _gradient_program(tickets.task, data.prepare)
    examples, batch_size = len(x), min(batch_size, len(x))
    so_far, total = np.full(examples, -np.inf), np.zeros_like(x)
    for number, heads in heads_by_ticket.items():
        ticket = tickets.tickets[number]
        params, model_state = jax.device_put((ticket.params, ticket.model_state))
        for first in range(0, examples, batch_size):
            # The last batch is filled up by repeating rows, so that there is one program.
            take = np.arange(first, first + batch_size) % examples
            log_p, gradient = jax.device_get(
                run(x[take], params, model_state, np.asarray(data.y[take], np.int32), heads)
            )
            rows = slice(first, min(first + batch_size, examples))
            log_p, gradient = (
                log_p[: rows.stop - first].astype(np.float64),
                gradient[: rows.stop - first],
            )
            together = np.logaddexp(so_far[rows], log_p)
            old, new = (
                np.exp(part - together).astype(np.float32) for part in (so_far[rows], log_p)
            )
            axes = (-1,) + (1,) * (x.ndim - 1)
            total[rows] = total[rows] * old.reshape(axes) + gradient * new.reshape(axes)
            so_far[rows] = together
    return total


@functools.lru_cache(maxsize=16)
def _gradient_program(task: Any, prepare: Any) -> Any:
    """The compiled function for log p(y) and its gradient with respect to x.

    `(x [B, ...], params, model_state, y [B], heads [H]) -> (log p(y) [B], its gradient [B, ...])`,
    p summed over those heads.
    """

    def label(
        x: jax.Array, params: PyTree, model_state: PyTree, y: jax.Array, heads: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        outputs, _ = task.apply(params, model_state, prepare(x), False, None)
        log_proba = task.log_proba(outputs)
        log_proba = log_proba[None] if task.heads == 1 else log_proba
        label_log_proba = jnp.take_along_axis(log_proba, y[None, :, None], axis=-1)[..., 0]
        log_p = jax.nn.logsumexp(jnp.where(heads[:, None], label_log_proba, -jnp.inf), axis=0)
        return jnp.sum(log_p), log_p

    @jax.jit
    def run(*args: Any) -> tuple[jax.Array, jax.Array]:
        (_, log_p), gradient = jax.value_and_grad(label, has_aux=True)(*args)
        return log_p, gradient

    return run
