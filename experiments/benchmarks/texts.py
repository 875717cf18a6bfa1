"""Parts of `benchmark.py` about text: fine-tuning, members in one run, pruning, buckets."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from benchmarks.timing import Row, Stepper, row, take_turns
from rich.console import Console

import jaxtickets as jt
from jaxtickets import masks
from jaxtickets.masks import sparsity
from jaxtickets.models import ENCODER_KERNELS, TextClassifier, TransformerConfig
from jaxtickets.transforms import keep_masked, prune_to

SMALL = TransformerConfig(layers=6, width=384, heads=12, intermediate=1536)
SHARE = 0.3  # of the prunable weights is gone
HUGE_PAGES = "glibc.malloc.hugetlb=1"


def network(sizes: TransformerConfig) -> jt.Task:
    """A text classifier of those sizes, with the paper's prunable weights."""
    return jt.classification(TextClassifier(sizes), prunable=ENCODER_KERNELS, name=str(sizes))


def token_batch(
    sizes: TransformerConfig, examples: int, tokens: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Random token ids without padding, and labels."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, sizes.vocabulary, (examples, tokens)).astype(np.int32)
    x = {
        "input_ids": ids,
        "token_type_ids": np.zeros_like(ids),
        "attention_mask": np.ones_like(ids),
    }
    return x, rng.integers(0, 2, examples).astype(np.int32)


def masked_step(batch: tuple[dict[str, np.ndarray], np.ndarray]) -> Stepper:
    """A stepper that fine-tunes the small BERT: AdamW on masked weights, with dropout."""
    task = network(SMALL)
    params, _ = jax.eval_shape(task.init, jax.random.key(0), batch[0])
    mask = sparsity.random_mask(jax.random.key(0), params, SHARE, rules=task.prunable)
    adamw = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(2e-5, weight_decay=0.0))
    return Stepper(task, keep_masked(adamw, mask), jax.tree.map(jnp.asarray, batch), SHARE)


def fine_tuning_step(rounds: int, examples: int = 32, tokens: int = 128) -> list[Row]:
    """A masked step of AdamW with dropout against the same network and step in PyTorch eager."""
    try:
        import torch
        from benchmarks.torch_networks import TorchTextStepper
    except ImportError:
        Console(stderr=True).print(
            "PyTorch or transformers is not installed; its rows are left out."
        )
        return []
    torch.set_num_threads(2)
    batch = token_batch(SMALL, examples, tokens)
    alternatives: dict[str, Any] = {"jax": masked_step(batch)}
    alternatives["torch"] = TorchTextStepper(SMALL.to_hf(), batch, SHARE)
    seconds = take_turns(alternatives, rounds)
    label = (
        f"BERT 6x384, {examples} x {tokens} tokens, masked fine-tuning step: speed relative to"
        " PyTorch eager"
    )
    return [row(label, seconds["jax"], seconds["torch"], ">=", 1.5)]


def huge_pages(rounds: int) -> list[Row]:
    """The fine-tuning step without and with huge pages, each in a process of its own.

    The pages are for what malloc gives: XLA asks for its memory anew in every step.
    """
    if not sys.platform.startswith("linux"):
        return []
    seconds: dict[str, list[float]] = {"": [], HUGE_PAGES: []}
    for _ in range(max(1, rounds // 2)):
        for tunables, times in seconds.items():
            command = [sys.executable, "-c", "from benchmarks import texts; texts.print_step()"]
            environment = os.environ | {"GLIBC_TUNABLES": tunables}
            process = subprocess.run(
                command,
                cwd=Path(__file__).parents[1],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            times.append(float(process.stdout.split()[-1]))
    plain, huge = (statistics.median(times) for times in seconds.values())
    return [
        row(
            f"the same step: times faster with GLIBC_TUNABLES={HUGE_PAGES}", huge, plain, ">=", None
        )
    ]


def print_step() -> None:
    """Print the seconds of a fine-tuning step, in a process of its own."""
    print(take_turns({"step": masked_step(token_batch(SMALL, 32, 128))}, 5)["step"])


def members_in_one_run(rounds: int) -> list[Row]:
    """Four members of a BERT in one `fit` against four lone ones.

    Seconds of training per member, medians over rounds.

    They take turns, each first in every second round, after a lone run that is not measured: the
    first run of a process also pays for what JAX and the allocator do once.
    """
    task, data = network(SMALL), token_batch(SMALL, 64, 64)
    keys = jt.member_keys(0, 4)

    def seconds(width: int, key: jax.Array) -> dict[str, float]:
        plan = jt.multi_ticket("baseline", width, epochs=jt.Length(6, "steps"), batch_size=16)
        with tempfile.TemporaryDirectory() as folder:
            jt.fit(plan, task, data, key=key, out=folder, progress=False)
            return json.loads((Path(folder) / "timing.json").read_bytes())["seconds"]

    together: list[dict[str, float]] = []
    alone: list[dict[str, float]] = []
    seconds(1, keys[:1])
    for turn in range(max(2, rounds // 2)):
        calls = [(4, keys, together), *((1, keys[i : i + 1], alone) for i in range(4))]
        for width, key, timings in calls if turn % 2 else reversed(calls):
            timings.append(seconds(width, key))
    rows = []
    for which, bound in (("train", 0.95), ("total", 1.0)):
        alone_seconds, together_seconds = (
            statistics.median(s[which] / width for s in timings_of_width)
            for timings_of_width, width in ((alone, 1), (together, 4))
        )
        name = {"train": "training", "total": "with compiling"}[which]
        rows.append(
            row(
                "BERT 6x384, 4 members in one run: times faster per member than 4 lone runs"
                f" ({name})",
                together_seconds,
                alone_seconds,
                ">=",
                bound,
            )
        )
    return rows


def global_pruning(rounds: int) -> list[Row]:
    """Pruning the smallest tenth of a BERT-base's 85 M prunable weights, by one threshold.

    In seconds, and in times faster than a sort.
    """
    task = network(TransformerConfig())
    shapes, _ = jax.eval_shape(task.init, jax.random.key(0), token_batch(SMALL, 1, 8)[0])
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    params = jax.tree.unflatten(
        tree, [jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    )
    full = masks.full(params, task.prunable)
    prune = jax.jit(lambda mask, params: prune_to(mask, params, 0.1, "global"))
    flat = jnp.concatenate(
        [
            jnp.abs(p).ravel()
            for p, m in zip(jax.tree.leaves(params), jax.tree.leaves(full), strict=True)
            if m.ndim
        ]
    )
    seconds = take_turns(
        {"ours": lambda: prune(full, params), "sort": lambda: np.partition(flat, flat.size // 10)},
        max(1, rounds // 2),
    )
    return [
        row(
            f"global magnitude pruning of {flat.size / 1e6:.0f} M weights: seconds / 1 s",
            seconds["ours"],
            1.0,
            "<=",
            2.0,
        ),
        row(
            "the same: times faster than numpy.partition for the threshold alone",
            seconds["ours"],
            seconds["sort"],
            ">=",
            None,
        ),
    ]


def buckets(rounds: int, data_dir: Path | None) -> list[Row]:
    """An epoch of MRPC at the lengths of its batches against one at 128 tokens throughout.

    Both are computed from the times of a step at each length.
    """
    from jaxtickets.dataset.buckets import lengths

    try:
        train = jt.data.glue(
            "mrpc", Path(data_dir or "") / "bert_uncased_vocab.txt", data_dir, download=False
        )["train"]
    except (jt.DataError, FileNotFoundError) as error:
        Console(stderr=True).print(
            f"MRPC is not there; its row is left out ({type(error).__name__})."
        )
        return []
    task, adamw = (
        network(SMALL),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(2e-5, weight_decay=0.0)),
    )
    steps = {}
    for tokens in train.buckets:
        batch = jax.tree.map(jnp.asarray, token_batch(SMALL, 32, tokens))
        steps[tokens] = Stepper(task, adamw, batch, SHARE)
    seconds = take_turns({str(tokens): step for tokens, step in steps.items()}, max(1, rounds // 2))
    order = (
        np.random.default_rng(0).permutation(len(train))[: len(train) // 32 * 32].reshape(-1, 32)
    )
    longest = lengths(train)[order].max(1)
    bucketed = sum(seconds[str(next(b for b in train.buckets if b >= n))] for n in longest)
    unbucketed = len(longest) * seconds[str(train.buckets[-1])]
    return [
        row(
            "MRPC, an epoch of batches of 32 in buckets: times faster than at 128 tokens"
            " throughout",
            bucketed,
            unbucketed,
            ">=",
            None,
        )
    ]
