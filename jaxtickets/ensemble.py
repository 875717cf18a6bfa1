"""Tickets and ensembles of them: what training leaves, and what predicts."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import masks
from jaxtickets.buckets import lengths, trim
from jaxtickets.dataset import Dataset, EvaluationStream
from jaxtickets.errors import DataError
from jaxtickets.plan import Plan
from jaxtickets.task import Task, mean_of_heads

PyTree = Any


class Ticket(NamedTuple):
    """A sparse subnetwork.

    Args:
      params: weights, exactly 0 where pruned.
      mask: which weights exist, a tree like `params` (see `jaxtickets.masks`).
      model_state: batch statistics and the like.
      info: where it comes from: lineage, phase, step, training loss and accuracy, density.
    """

    params: PyTree
    mask: PyTree
    model_state: PyTree
    info: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class TicketEnsemble:
    """An ensemble of tickets of one task.

    Where one network gives H predictions (`Task.heads`), each of them is a member of the ensemble's prediction: T tickets
    make M = T H members, ticket by ticket. Masks and the ensemble's length are those of tickets.

    Args:
      task: the network they are tickets of.
      tickets: the networks, in the order in which they were collected.
      x_spec: shape (without the batch axis) and dtype of what the network takes, a tree of `jax.ShapeDtypeStruct`.
      plan: what produced them, if known.
    """

    task: Task
    tickets: Sequence[Ticket]
    x_spec: PyTree
    plan: Plan | None = None

    def __post_init__(self) -> None:
        if not self.tickets:
            raise ValueError("an ensemble has at least one ticket; got none.")

    def __len__(self) -> int:
        return len(self.tickets)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self.tickets)

    def __getitem__(self, which: int | np.integer | slice | Sequence[int] | np.ndarray) -> TicketEnsemble:
        """The ensemble of those members: `tickets[0]`, `tickets[:2]`, `tickets[[0, 2]]`, `tickets[[True, False, True]]`."""
        rows = np.atleast_1d(np.arange(len(self))[which])
        return dataclasses.replace(self, tickets=tuple(self.tickets[i] for i in rows))

    def __repr__(self) -> str:
        density = ", ".join(f"{masks.density(mask):.3g}" for mask in self.masks)
        return f"TicketEnsemble({len(self)} x {self.task.name}, density {density})"

    @property
    def members(self) -> tuple[Ticket, ...]:
        """The tickets."""
        return tuple(self.tickets)

    @property
    def masks(self) -> list[PyTree]:
        """The tickets' masks."""
        return [ticket.mask for ticket in self.tickets]

    @property
    def heads(self) -> int:
        """How many predictions each ticket gives: H."""
        return self.task.heads

    def member_log_proba(self, x: Any, batch_size: int = 500) -> np.ndarray:
        """Log-probabilities of every member, float32 [M, N, C]: of all heads of all tickets, ticket by ticket.

        Args:
          x: a `Dataset` (its `prepare` is applied), an `EvaluationStream` (read once, for all members), or arrays as
            the network takes them, [N, ...].
          batch_size: examples per forward pass.

        Raises:
          DataError: arrays of another shape or dtype than the network was trained on, NaN or infinity in them, or none.
          ValueError: a batch size below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is at least 1; got {batch_size}.")
        if isinstance(x, EvaluationStream):
            return self._streamed_log_proba(x, min(batch_size, max(1, len(x))))
        prepare = x.prepare if isinstance(x, Dataset) else _as_is
        sizes, buckets = (lengths(x), x.buckets) if isinstance(x, Dataset) and x.buckets else (None, ())
        x = x.x if isinstance(x, Dataset) else x
        self._check(x, prepare)
        examples = jax.tree.leaves(x)[0].shape[0]
        order = np.arange(examples) if sizes is None else np.argsort(sizes, kind="stable")  # alike lengths together
        predict = _predictor(self.task, prepare)
        batch_size = min(batch_size, examples)
        out = []
        for ticket in self.tickets:
            params, model_state = jax.device_put((ticket.params, ticket.model_state))
            rows = []
            for first in range(0, examples, batch_size):
                # The last batch is filled up by repeating rows, so that there is one program for all batches (of a length).
                take = order[np.arange(first, first + batch_size) % examples]
                batch = jax.tree.map(lambda a, t=take: jnp.asarray(a[t]), x)
                if sizes is not None:
                    batch = trim(batch, next(bucket for bucket in buckets if bucket >= sizes[take].max()))
                rows.append(predict(params, model_state, batch))
            heads = [row if self.heads > 1 else row[None] for row in jax.device_get(rows)]
            out.append(np.concatenate(heads, 1)[:, np.argsort(order, kind="stable")])
        return np.concatenate(out)

    def ticket_log_proba(self, x: Any, batch_size: int = 500) -> np.ndarray:
        """Log-probabilities of every ticket, the mean of its heads, float32 [T, N, C]; see `member_log_proba` for `x`."""
        each = self.member_log_proba(x, batch_size)
        if self.heads == 1:
            return each
        return np.stack([np.asarray(mean_of_heads(self.task, jnp.asarray(one))) for one in np.split(each, len(self))])

    def _streamed_log_proba(self, stream: EvaluationStream, batch_size: int) -> np.ndarray:
        """`member_log_proba` of a stream: a batch is read, and every ticket predicts it."""
        predict = _predictor(self.task, _as_is)
        on_device = jax.device_put([(ticket.params, ticket.model_state) for ticket in self.tickets])
        out, examples = [], 0
        for x in stream.in_order(batch_size):
            self._check(x, _as_is)
            size = jax.tree.leaves(x)[0].shape[0]
            take = np.arange(batch_size) % size  # a short batch is filled up, so that there is one program
            x = x if size == batch_size else jax.tree.map(lambda a, t=take: a[t], x)
            predictions = jax.device_get([predict(*ticket, x) for ticket in on_device])
            out.append(np.concatenate([one if self.heads > 1 else one[None] for one in predictions])[:, :size])
            examples += size
        if examples != len(stream) or not out:
            raise DataError(f"{stream.name} has {len(stream)} examples and yields {examples}.")
        return np.concatenate(out, axis=1)

    def log_proba(self, x: Any, batch_size: int = 500) -> np.ndarray:
        """Log of the mean of the members' probabilities, float32 [N, C]; the mean prediction [N] for regression."""
        each = self.member_log_proba(x, batch_size)
        if self.task.num_classes is None:
            return each.mean(0)
        return np.asarray(jax.nn.logsumexp(each, axis=0) - np.float32(np.log(len(each))))

    def predict_proba(self, x: Any, batch_size: int = 500) -> np.ndarray:
        """Probabilities of the ensemble, the mean of the members', float32 [N, C]; see `member_log_proba` for `x`."""
        return np.exp(self.log_proba(x, batch_size))

    def predict(self, x: Any, batch_size: int = 500) -> np.ndarray:
        """The most probable class, int [N]."""
        return self.log_proba(x, batch_size).argmax(-1)

    def recalibrate(self, dataset: Dataset, batch_size: int = 500, batches: int = 200) -> TicketEnsemble:
        """The ensemble with batch statistics estimated anew from `dataset` (training data), the weights as they are.

        A mask that changed late leaves running averages of a network that no longer is. The network is run in training
        mode on `batches` batches, and its running averages move as they did in training: with a momentum of 0.9, a
        share of 0.9^200 = 7e-10 of the old ones is left. Batch b of B is rows b, b + B, b + 2B, ..., so data in order of
        class does no harm; there is no augmentation.

        Args:
          dataset: training data.
          batch_size: examples per batch; at most those there are.
          batches: how many batches; `dataset` is gone through as often as that takes.

        Raises:
          DataError: examples of another shape or dtype than the network was trained on, or none.
        """
        self._check(dataset.x, dataset.prepare)
        size = min(batch_size, len(dataset))
        per_pass = len(dataset) // size
        renew = _renewer(self.task, dataset.prepare)
        renewed = []
        for ticket in self.tickets:
            params, state = jax.device_put((ticket.params, ticket.model_state))
            for batch in range(batches):
                rows = np.arange(size) * per_pass + batch % per_pass
                state = renew(params, state, jax.tree.map(lambda a, r=rows: jnp.asarray(a[r]), dataset.x))
            renewed.append(ticket._replace(model_state=jax.device_get(state)))
        return dataclasses.replace(self, tickets=tuple(renewed))

    def save(self, path: str | Path) -> None:
        """One safetensors file: bit-packed masks, surviving weights only, plan and info as metadata. Atomic."""
        from jaxtickets import ticket_file

        ticket_file.write(self, Path(path))

    def _check(self, x: PyTree, prepare: Any) -> None:
        check_inputs(x, prepare, self.x_spec, f"{self.task.name} was trained on")


def check_inputs(x: PyTree, prepare: Any, x_spec: PyTree, wants: str, name: str = "x") -> None:
    """Raise `DataError` unless a network that takes `x_spec` per example can predict `prepare(x)`.

    Args:
      x: arrays [N, ...], as they are stored.
      prepare: what makes inputs of them.
      x_spec: shape (without the batch axis) and dtype of what the network takes.
      wants: the words before that in an error.
      name: what an error calls x.
    """
    leaves = jax.tree.leaves(x)
    if not leaves or any(np.ndim(leaf) == 0 for leaf in leaves) or leaves[0].shape[0] == 0:
        raise DataError(f"{name} holds no examples; it is a Dataset, or arrays with the example axis first.")
    if len({leaf.shape[0] for leaf in leaves}) > 1:
        raise DataError(f"the arrays of {name} hold {sorted({leaf.shape[0] for leaf in leaves})} examples; row i of each is example i.")
    got = jax.eval_shape(prepare, jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, jax.dtypes.canonicalize_dtype(a.dtype)), x))
    same_tree = jax.tree.structure(got) == jax.tree.structure(x_spec)
    if not same_tree or any((g.shape[1:], g.dtype) != (s.shape, s.dtype) for g, s in zip(jax.tree.leaves(got), jax.tree.leaves(x_spec))):
        raise DataError(
            f"{name} is {_spec(got, 1)} per example; {wants} {_spec(x_spec, 0)}. Pass the data set itself, or dataset.prepare(x)."
        )
    for leaf in leaves:
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not np.isfinite(leaf).all():
            raise DataError(f"{name} holds NaN or infinite values; predictions of them mean nothing.")


def _spec(tree: PyTree, batch_axes: int) -> str:
    return ", ".join(f"{leaf.dtype}{list(leaf.shape[batch_axes:])}" for leaf in jax.tree.leaves(tree))


def _as_is(x: PyTree) -> PyTree:
    return x


@functools.lru_cache(maxsize=16)
def _predictor(task: Task, prepare: Any) -> Any:
    @jax.jit
    def predict(params: PyTree, model_state: PyTree, x: PyTree) -> jax.Array:
        outputs, _ = task.apply(params, model_state, prepare(x), False, None)
        return task.log_proba(outputs)

    return predict


@functools.lru_cache(maxsize=4)
def _renewer(task: Task, prepare: Any) -> Any:
    @jax.jit
    def renew(params: PyTree, model_state: PyTree, x: PyTree) -> PyTree:
        # The key only feeds dropout, whose statistics are those of training.
        return task.apply(params, model_state, prepare(x), True, jax.random.key(0))[1]

    return renew
