"""Tickets and ensembles of them: what training leaves, and what predicts."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import masks
from jaxtickets.dataset import Dataset, EvaluationStream
from jaxtickets.dataset.arrays import as_dataset
from jaxtickets.dataset.buckets import lengths, trim
from jaxtickets.dataset.conversion import as_inputs
from jaxtickets.errors import DataError, ExportError, TicketError
from jaxtickets.files import paths
from jaxtickets.masks.packing import tables_in, unpacked
from jaxtickets.messages import checks
from jaxtickets.plan import Plan
from jaxtickets.task import Task, mean_of_heads
from jaxtickets.tickets.exporting import prepare_export, prepare_of
from jaxtickets.tickets.function import PredictiveFunction, predictive_function
from jaxtickets.tickets.inputs import check_inputs
from jaxtickets.tickets.onnx_file import write_onnx
from jaxtickets.tickets.program_file import write_program
from jaxtickets.tickets.reading import read
from jaxtickets.tickets.ticket import Ticket
from jaxtickets.tickets.writing import write
from jaxtickets.tracing.index_ranges import check_values
from jaxtickets.tracing.precision import in_32_bits

PyTree = Any


@dataclasses.dataclass(frozen=True)
class TicketEnsemble:
    """An ensemble of tickets of one task.

    Where one network gives H predictions (`Task.heads`), each of them is a member of the ensemble's
    prediction: T tickets make M = T H members, ticket by ticket. Masks and the ensemble's length
    are those of tickets.

    Args:
      task: the network they are tickets of.
      tickets: the networks, in the order in which they were collected.
      x_spec: shape (without the batch axis) and dtype of what the network takes, a tree of
        `jax.ShapeDtypeStruct`.
      plan: what produced them, if known.
    """

    task: Task
    tickets: Sequence[Ticket]
    x_spec: PyTree
    plan: Plan | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.task, Task):
            raise TicketError(
                "task is a Task, such as classification(model) makes; got"
                f" {checks.shown(self.task)}."
            )
        if not isinstance(self.tickets, Sequence) or isinstance(self.tickets, Ticket):
            raise TicketError(
                f"tickets is a tuple of Ticket(...); got {type(self.tickets).__name__}."
            )
        if isinstance(self.tickets, tuple | list) and not all(
            isinstance(ticket, Ticket) for ticket in self.tickets
        ):
            raise TicketError(
                f"tickets is a tuple of Ticket(...); got {checks.shown(self.tickets)}."
            )
        if isinstance(self.tickets, str):
            raise TicketError(
                f"tickets is a tuple of Ticket(...); got {self.tickets!r:.80}. jaxtickets.load"
                " reads a ticket file."
            )
        if self.plan is not None and not isinstance(self.plan, Plan):
            raise TicketError(f"plan is a Plan, or None; got {checks.shown(self.plan)}.")
        if not len(self.tickets):
            raise TicketError("an ensemble has at least one ticket; got none.")

    def __len__(self) -> int:
        return len(self.tickets)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self.tickets)

    def __getitem__(
        self, which: int | np.integer | slice | Sequence[int] | np.ndarray
    ) -> TicketEnsemble:
        """The ensemble of those members: `tickets[0]`, `tickets[:2]`, `tickets[[0, 2]]`,
        `tickets[[True, False, True]]`.
        """
        try:
            rows: Any = np.atleast_1d(np.arange(len(self))[which])
        except (IndexError, TypeError, ValueError):
            rows = np.zeros((0, 0), int)
        if rows.ndim != 1:
            some = "one of them, or several as tickets[:2] or tickets[[0, 1]]"
            raise IndexError(
                f"tickets[{checks.shown(which)}]: there are {len(self)}, 0 to {len(self) - 1}; take"
                f" {some}."
            )
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
        """The tickets' masks, of whole layers where those are packed."""
        return [unpacked(t.mask, tables_in(t.model_state)) for t in self.tickets]

    @property
    def heads(self) -> int:
        """How many predictions each ticket gives: H."""
        return self.task.heads

    @in_32_bits
    def member_log_proba(self, x: Any, batch_size: int = 500) -> np.ndarray:
        """Log-probabilities of every member, float32 [M, N, C]: of all heads of all tickets, ticket
        by ticket.

        Args:
          x: a `Dataset` (its `prepare` is applied), an `EvaluationStream` (read once, for all
            members), or arrays as the network takes them, [N, ...]: NumPy's, JAX's, torch's or
            pandas'.
          batch_size: examples per forward pass.

        Raises:
          DataError: arrays of another shape or dtype than the network was trained on, NaN or
            infinity in them, or none.
          TicketError: a member whose predictions are NaN (of a regression, or infinite).
          ValueError: a batch size below 1.
        """
        each = self._each_log_proba(x, batch_size)
        self._check_predictions(each)
        return each

    def _check_predictions(self, each: np.ndarray) -> None:
        lost: Any = ~np.isfinite(each) if self.task.num_classes is None else np.isnan(each).any(-1)
        if not lost.any():
            return
        found = []
        for member in np.flatnonzero(lost.any(-1)).tolist():
            rows = np.flatnonzero(lost[member])
            some = ", ".join(map(str, rows[:5].tolist())) + (", ..." if len(rows) > 5 else "")
            found.append(
                f"member {member} of {len(rows)} of {each.shape[1]} examples (rows {some})"
            )
        whole = all(
            np.isfinite(leaf).all()
            for ticket in self.tickets
            for leaf in jax.tree.leaves((ticket.params, ticket.model_state))
        )
        cause = (
            "Its weights are finite: those inputs are out of the range that the network takes"
            if whole
            else (
                "Its weights or batch statistics are not finite: the training diverged; leave it"
                " out, as in tickets[[0, 1]]"
            )
        )
        more = f" and of {len(found) - 3} more members" if len(found) > 3 else ""
        raise TicketError(
            f"{self.task.name}: the predictions are NaN of {'; '.join(found[:3])}{more}. {cause}."
        )

    def _each_log_proba(self, x: Any, batch_size: int) -> np.ndarray:
        """`member_log_proba` as it comes, NaN and all."""
        if not checks.is_int(batch_size) or batch_size < 1:
            kind = "" if checks.is_int(batch_size) else "a whole number, "
            raise ValueError(f"batch_size is {kind}at least 1; got {checks.shown(batch_size)}.")
        if isinstance(x, EvaluationStream):
            return self._streamed_log_proba(x, min(batch_size, max(1, len(x))))
        prepare = x.prepare if isinstance(x, Dataset) else _as_is
        sizes, buckets = (
            (lengths(x), x.buckets) if isinstance(x, Dataset) and x.buckets else (None, ())
        )
        x = as_inputs(x.x, f"{x.name}: x") if isinstance(x, Dataset) else as_inputs(x)
        self._check(x, prepare)
        examples = jax.tree.leaves(x)[0].shape[0]
        # alike lengths together
        order = np.arange(examples) if sizes is None else np.argsort(sizes, kind="stable")
        predict = _predictor(self.task, prepare)
        batch_size = min(batch_size, examples)
        out = []
        for ticket in self.tickets:
            params, model_state = jax.device_put((ticket.params, ticket.model_state))
            rows = []
            for first in range(0, examples, batch_size):
                # The last batch is filled up by repeating rows, so that there is one program for
                # all batches (of a length).
                take = order[np.arange(first, first + batch_size) % examples]
                batch = jax.tree.map(lambda a, t=take: jnp.asarray(a[t]), x)
                if sizes is not None:
                    batch = trim(
                        batch, next(bucket for bucket in buckets if bucket >= sizes[take].max())
                    )
                rows.append(predict(params, model_state, batch))
            heads = [row if self.heads > 1 else row[None] for row in jax.device_get(rows)]
            out.append(np.concatenate(heads, 1)[:, np.argsort(order, kind="stable")])
        return np.concatenate(out)

    @in_32_bits
    def ticket_log_proba(self, x: Any, batch_size: int = 500) -> np.ndarray:
        """Log-probabilities of every ticket, the mean of its heads, float32 [T, N, C]; see
        `member_log_proba` for `x`.

        For looking at networks while they train: what is NaN is given as NaN.
        """
        each = self._each_log_proba(x, batch_size)
        if self.heads == 1:
            return each
        return np.stack(
            [
                np.asarray(mean_of_heads(self.task, jnp.asarray(one)))
                for one in np.split(each, len(self))
            ]
        )

    def _streamed_log_proba(self, stream: EvaluationStream, batch_size: int) -> np.ndarray:
        """`member_log_proba` of a stream: a batch is read, and every ticket predicts it."""
        predict = _predictor(self.task, _as_is)
        on_device = jax.device_put([(ticket.params, ticket.model_state) for ticket in self.tickets])
        out, examples = [], 0
        for x in stream.in_order(batch_size):
            self._check(x, _as_is)
            size = jax.tree.leaves(x)[0].shape[0]
            # a short batch is filled up, so that there is one program
            take = np.arange(batch_size) % size
            x = x if size == batch_size else jax.tree.map(lambda a, t=take: a[t], x)
            predictions = jax.device_get([predict(*ticket, x) for ticket in on_device])
            out.append(
                np.concatenate([one if self.heads > 1 else one[None] for one in predictions])[
                    :, :size
                ]
            )
            examples += size
        if examples != len(stream) or not out:
            raise DataError(f"{stream.name} has {len(stream)} examples and yields {examples}.")
        return np.concatenate(out, axis=1)

    @in_32_bits
    def log_proba(self, x: Any, batch_size: int = 500) -> np.ndarray:
        """Log of the mean of the members' probabilities, float32 [N, C]; the mean prediction [N]
        for regression.
        """
        each = self.member_log_proba(x, batch_size)
        if self.task.num_classes is None:
            return each.mean(0)
        return np.asarray(jax.nn.logsumexp(each, axis=0) - np.float32(np.log(len(each))))

    def predict_proba(self, x: Any, batch_size: int = 500) -> np.ndarray:
        """Probabilities of the ensemble, the mean of the members', float32 [N, C]; see
        `member_log_proba` for `x`.
        """
        return np.exp(self.log_proba(x, batch_size))

    def predict(self, x: Any, batch_size: int = 500) -> np.ndarray:
        """The most probable class, int [N]."""
        return self.log_proba(x, batch_size).argmax(-1)

    @in_32_bits
    def recalibrate(
        self, dataset: Dataset | tuple[Any, Any], batch_size: int = 500, batches: int = 200
    ) -> TicketEnsemble:
        """The ensemble with batch statistics estimated anew from `dataset` (training data), the
        weights as they are.

        A mask that changed late leaves running averages of a network that no longer is. The network
        is run in training mode on `batches` batches, and its running averages move as they did in
        training: with a momentum of 0.9, a share of 0.9^200 = 7e-10 of the old ones is left. Batch
        b of B is rows b, b + B, b + 2B, ..., so data in order of class does no harm; there is no
        augmentation.

        Args:
          dataset: training data, a `Dataset` or a pair of arrays `(x, y)`.
          batch_size: examples per batch; at most those there are.
          batches: how many batches; `dataset` is gone through as often as that takes.

        Raises:
          DataError: examples of another shape or dtype than the network was trained on, or none.
          ValueError: a `batch_size` or `batches` below 1.
        """
        for name, count in (("batch_size", batch_size), ("batches", batches)):
            if not checks.is_int(count) or count < 1:
                raise ValueError(
                    f"{name} is a whole number, at least 1; got {checks.shown(count)}."
                )
        dataset = as_dataset(dataset, self.task.num_classes)
        self._check(dataset.x, dataset.prepare)
        size = min(batch_size, len(dataset))
        per_pass = len(dataset) // size
        renew = _renewer(self.task, dataset.prepare)
        renewed = []
        for ticket in self.tickets:
            params, state = jax.device_put((ticket.params, ticket.model_state))
            for batch in range(batches):
                rows = np.arange(size) * per_pass + batch % per_pass
                state = renew(
                    params, state, jax.tree.map(lambda a, r=rows: jnp.asarray(a[r]), dataset.x)
                )
            renewed.append(ticket._replace(model_state=jax.device_get(state)))
        return dataclasses.replace(self, tickets=tuple(renewed))

    @in_32_bits
    def save(self, path: str | Path) -> None:
        """One safetensors file: bit-packed masks, surviving weights only, plan and info as
        metadata. Atomic.
        """
        write(paths.given(path), self.task, self.tickets, self.x_spec, self.plan)

    def function(self, data: Dataset | None = None, *, members: bool = False) -> PredictiveFunction:
        """The ensemble as a pure function of a batch of raw inputs, to be compiled, derived or
        exported with other JAX code.

        Args:
          data: the data set whose raw inputs (pixels, token ids) the function takes: its `prepare`,
            the normalisation, becomes a part of it. None: it takes inputs as the network does.
          members: probabilities of every member, [M, B, C], instead of their mean, [B, C].

        Returns:
          A `PredictiveFunction`: `f(x)` closes over the weights, `f.apply(f.weights, x)` takes
          them.

        Raises:
          ExportError: `data` that is no data set.

        >>> import jaxtickets as jt
        >>> test = jt.data.load("digits", "test")
        >>> task = jt.classification(jt.models.WideResNet(10, 1))
        >>> x = test.prepare(test.x[:1])
        >>> params, state = task.init(jax.random.key(0), x)
        >>> ticket = Ticket(params, masks.dense(params), state, {})
        >>> spec = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
        >>> predict = TicketEnsemble(task, (ticket,), spec).function(test)
        >>> jax.jit(predict)(test.x[:5]).shape
        (5, 10)
        """
        if not isinstance(members, bool):
            raise ExportError(f"members is True or False; got {checks.shown(members)}.")
        return predictive_function(self.task, self.tickets, self.x_spec, prepare_of(data), members)

    @in_32_bits
    def export(
        self,
        path: str | Path,
        data: Any = None,
        *,
        platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
        batch: int | Literal["any"] = "any",
        members: bool = False,
        format: Literal["stablehlo", "onnx"] | None = None,
        tolerance: float = 1e-4,
    ) -> dict[str, Any]:
        """Write `function` to a file that runs without this package's networks.

        StableHLO runs in JAX, by `jaxtickets.load_exported`, on the platforms that it was lowered
        for, which need not be here; JAX reads what it wrote for six months. ONNX runs in ONNX
        Runtime and many others; it needs the extra `export`.

        What is made is run on a few inputs, on this machine, and compared with `predict_proba`; the
        largest difference is written into the file. An ensemble that is off is not written, and a
        file that was there before stays until the new one is whole.

        Masks do not make the file smaller nor its predictions faster: zeros are stored and
        multiplied by like other numbers. Networks whose units were cut out (`Shrink`, `shrink`)
        are smaller. The file says how many of its numbers are zeros.

        Args:
          path: where to; an earlier export is replaced, another file is not.
          data: the data set whose raw inputs the exported function takes, normalisation inside, and
            on whose first examples it is checked; or arrays as the network takes them, to check it
            on. None: as the network takes them, checked on drawn ones.
          platforms: of StableHLO: what it is lowered for, of "cpu", "cuda", "rocm" and "tpu".
          batch: examples at a time, or "any".
          members: write probabilities of every member, [M, B, C], instead of their mean, [B, C].
          format: "stablehlo" or "onnx"; None: ONNX where the path ends in .onnx, else StableHLO.
          tolerance: how far probabilities may be off, above 0; of a regression as a share of the
            largest prediction. Rounding in another order moves those of a float32 network by some
            1e-7; one that computes in bfloat16 needs 1e-2.

        Returns:
          What the file says of itself, the check among it; see `ExportedFunction.about`.

        Raises:
          ExportError: an argument that cannot be, a network that cannot be exported (names the
            layer, where ONNX lacks it), or what was made is off by more than `tolerance`.
          DataError: `data` of another shape or dtype than the network was trained on.
          ImportError: ONNX without the extra `export`.
          OSError: it cannot be written.
        """
        where = paths.given(path)
        if format is None:
            if where.suffix not in ("", ".jax", ".stablehlo", ".onnx"):
                raise ExportError(
                    "path ends in .jax (StableHLO) or .onnx, or format= says what it is; got"
                    f" {checks.shown(str(where))}."
                )
            format = "onnx" if where.suffix == ".onnx" else "stablehlo"
        if format not in ("stablehlo", "onnx"):
            raise ExportError(f'format is "stablehlo", "onnx" or None; got {checks.shown(format)}.')
        exporting = prepare_export(self, data, batch, members, tolerance)
        if format == "onnx":
            return write_onnx(exporting, where)
        return write_program(exporting, where, platforms)

    def _check(self, x: PyTree, prepare: Any) -> None:
        check_inputs(x, prepare, self.x_spec, f"{self.task.name} was trained on")
        check_values(
            self.task, prepare, self.tickets[0].params, self.tickets[0].model_state, x, "x"
        )


@in_32_bits
def load(path: str | Path, task: Task) -> TicketEnsemble:
    """The ensemble in a ticket file.

    Args:
      path: what `TicketEnsemble.save` wrote.
      task: the network that they are tickets of; its params must have the file's tree, shapes and
        dtypes. The leaves of shrunk and packed tickets may be smaller, if the network runs with
        them.

    Returns:
      A `TicketEnsemble` of numpy arrays.

    Raises:
      FileNotFoundError: there is no such file.
      OSError: it cannot be read; that is no damage.
      TicketFileError: not a ticket file, damaged, tampered with, or of another network; says which
        leaf.
    """
    return TicketEnsemble(task, *read(paths.given(path), task))


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
