"""Parts of `benchmark.py` about blocks: dense layers packed against the same masked."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from benchmarks import texts
from benchmarks.timing import Row, Stepper, row, take_turns
from flax import linen as nn

import jaxtickets as jt
from jaxtickets import masks
from jaxtickets.masks import Blocks, sparsity
from jaxtickets.transforms import keep_masked

BLOCKS = Blocks(32, 32)
SPARSITIES = (0.8, 0.9)


class Perceptron(nn.Module):
    """Two hidden layers of 1024."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, inputs] to logits [B, 10]."""
        for _ in range(2):
            x = nn.relu(nn.Dense(1024)(x))
        return nn.Dense(10)(x)


def steppers(
    task: jt.Task,
    tx: optax.GradientTransformation,
    batch: Any,
    share: float,
    keep_dense: tuple[str, ...],
) -> dict[str, Stepper]:
    """The training step of a network of random blocks, masked and packed."""
    x_spec = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), batch[0])
    params, state = task.init(jax.random.key(0), jax.tree.map(lambda a: a[:1], batch[0]))
    mask = sparsity.random_mask(
        jax.random.key(1), params, share, "uniform", task.prunable, keep_dense, structure=BLOCKS
    )
    ticket = jt.Ticket(masks.apply(mask, params), mask, state, {})
    masked = jt.TicketEnsemble(task, (ticket,), x_spec)
    both = {"masked": masked, "packed": jt.pack(masked, BLOCKS)}
    return {
        name: Stepper(
            task,
            keep_masked(tx, ticket.mask),
            batch,
            network=(ticket.params, ticket.model_state),
        )
        for name, (ticket,) in ((name, of.tickets) for name, of in both.items())
    }


def perceptron_steps(rounds: int, examples: int) -> list[Row]:
    """A training step of a perceptron of 3072-1024-1024-10."""
    rng, rows = np.random.default_rng(0), []
    x = jnp.asarray(rng.normal(size=(examples, 3072)).astype(np.float32))
    batch, task = (
        (x, jnp.asarray(rng.integers(0, 10, examples))),
        jt.classification(Perceptron(), num_classes=10),
    )
    for share in SPARSITIES:
        tx = optax.sgd(0.1, momentum=0.9)
        seconds = take_turns(steppers(task, tx, batch, share, ("Dense_2",)), rounds)
        label = f"MLP 3072-1024-1024-10, blocks of 32 x 32 at {share:.0%}, training step"
        bound = 1.5 if share < 0.9 else 2.0
        text = f"{label}: times faster packed than masked"
        rows.append(row(text, seconds["packed"], seconds["masked"], ">=", bound))
    return rows


def text_steps(rounds: int, examples: int = 32, tokens: int = 128) -> list[Row]:
    """A fine-tuning step of a BERT whose feed-forward parts are made of blocks."""
    batch = jax.tree.map(jnp.asarray, texts.token_batch(texts.SMALL, examples, tokens))
    adamw = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(2e-5, weight_decay=0.0))
    attention = (r"/(query|key|value|attention_output)/",)
    rows = []
    for share in SPARSITIES:
        of = steppers(texts.network(texts.SMALL), adamw, batch, share, attention)
        seconds = take_turns(of, rounds)
        label = f"BERT 6x384, feed-forward part of blocks at {share:.0%}, fine-tuning step"
        text = f"{label}: times faster packed than masked"
        rows.append(row(text, seconds["packed"], seconds["masked"], ">=", None))
    return rows
