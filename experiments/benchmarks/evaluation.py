"""Parts of `benchmark.py` about evaluation: all subsets of 20 members, and `jt.evaluate`.

Of `jt.evaluate` it is measured what it adds to predicting.
"""

from __future__ import annotations

import jax
import numpy as np
from benchmarks.timing import Row, row, take_turns

import jaxtickets as jt
from jaxtickets import evaluation, masks


def members_that_agree(members: int, examples: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [M, B, C] and labels [B] of members that agree as those of one method do.

    Each is right on 75 %, and they differ on 20 % of their labels.
    """
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, examples)
    shared = 2 * rng.standard_normal((examples, classes))
    shared[np.arange(examples), y] += 6 + 3 * rng.standard_normal(examples)
    return softmax(shared + rng.standard_normal((members, examples, classes))), y


def members_of_chance(members: int, examples: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [M, B, C] and labels [B] of members that guess independently.

    Whether an ensemble has an example right hangs on who is in it.
    """
    rng = np.random.default_rng(0)
    return softmax(rng.standard_normal((members, examples, classes))), rng.integers(
        0, classes, examples
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis."""
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def all_subsets(rounds: int) -> list[Row]:
    """The accuracies of all 616,665 ensembles of up to 10 of 20 members.

    They are measured on 10,000 examples of ten classes.
    """
    sizes = range(1, 11)
    p, y = members_that_agree(20, 10_000, 10)
    chance, labels = members_of_chance(20, 1_000, 10)
    seconds = take_turns(
        {"alike": lambda: evaluation.subset_scores(p, y, sizes)[10]}, max(1, rounds // 3)
    )
    worst = take_turns({"chance": lambda: evaluation.subset_scores(chance, labels, sizes)[10]}, 1)
    return [
        row(
            "accuracy of 616,665 ensembles of 20 members, 10,000 examples, 10 classes: seconds /"
            " 10 s",
            seconds["alike"],
            10.0,
            "<=",
            1.0,
        ),
        row(
            "the same of members that predict at random, 1,000 examples: seconds / 10 s",
            worst["chance"],
            10.0,
            "<=",
            None,
        ),
    ]


def against_forward_passes(rounds: int, members: int = 3, examples: int = 10_000) -> list[Row]:
    """`jt.evaluate` of sparse WideResNets against their forward passes alone.

    The images have the shape of CIFAR's.
    """
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((examples, 32, 32, 3), np.float32), rng.integers(0, 10, examples)
    task = jt.classification(jt.models.WideResNet(10, 1))
    tickets = []
    for key in jax.random.split(jax.random.key(0), members):
        params, state = task.init(key, x[:1])
        mask = jax.device_get(jt.sparsity.random_mask(key, params, 0.8))
        tickets.append(
            jt.Ticket(jax.device_get(masks.apply(mask, params)), mask, jax.device_get(state), {})
        )
    ensemble = jt.TicketEnsemble(task, tuple(tickets), jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
    alternatives = {
        "evaluate": lambda: jt.evaluate(ensemble, (x, y)).examples,
        "predict": lambda: ensemble.member_log_proba(x),
    }
    seconds = take_turns(alternatives, max(1, rounds // 2))
    label = (
        f"evaluation of {members} members (WRN-10-1) on {examples:,} images / their forward passes"
    )
    return [row(label, seconds["evaluate"], seconds["predict"], "<=", 1.1)]
