"""Model, data and measurements of the text experiment, as its flags say."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from rich.console import Console
from support import hosts, side_by_side
from support.published import multi_ticket_diversity, multi_ticket_gain
from support.text_flags import UNITS, Config

import jaxtickets as jt
from jaxtickets import evaluation
from jaxtickets.data import GLUE_TASKS, synthetic_text
from jaxtickets.plan import Adam
from jaxtickets.schedules import Linear, Warmup

TITLES = {
    "baseline": "BASELINE",
    "bagging": "BAGGING",
    "base_lt": "BASE-LT",
    "active_lt": "ACTIVE-LT",
    "random_lt": "RANDOM-LT",
}
# Sizes of the demo's BERT.
DEMO_SIZES = jt.models.TransformerConfig(
    vocabulary=len(synthetic_text.VOCABULARY),
    layers=2,
    width=64,
    heads=4,
    intermediate=256,
    positions=synthetic_text.LENGTH,
)
# Training examples of each task of GLUE, as published, for costs alone.
EXAMPLES = {
    "cola": 8551,
    "sst2": 67349,
    "mrpc": 3668,
    "stsb": 5749,
    "qqp": 363_846,
    "mnli": 392_702,
    "qnli": 104_743,
    "rte": 2490,
}


@dataclasses.dataclass(frozen=True)
class Given:
    """The task, the sizes of its network, its examples, and whether they are synthetic."""

    task: jt.Task
    sizes: Any
    train: jt.Dataset
    validation: jt.Dataset
    synthetic: bool


def prepare(config: Config, console: Console) -> Given:
    """The model and the data that the flags name."""
    if config.task == "paraphrases":
        console.print(
            "The demo's language, its text and its paraphrases are synthetic: made up. They rank"
            " nothing.",
            highlight=False,
        )
        checkpoint = pretrain(config)
        task = jt.fine_tuning(checkpoint, 2, dtype=jnp.dtype(config.precision), new_pooler=True)
        return Given(
            task,
            checkpoint.config,
            jt.data.paraphrases("train"),
            jt.data.paraphrases("validation"),
            True,
        )
    checkpoint = hosts.together(lambda: jt.read_checkpoint(config.model))
    splits = GLUE_TASKS[config.task].splits[:2]
    datasets = hosts.together(
        lambda: jt.data.glue(
            config.task,
            config.tokenizer or config.model,
            config.data_dir,
            max_length=config.max_length,
            splits=splits,
        )
    )
    classes = len(GLUE_TASKS[config.task].class_names) or None
    task = jt.fine_tuning(checkpoint, classes, dtype=jnp.dtype(config.precision))
    return Given(task, checkpoint.config, datasets[splits[0]], datasets[splits[1]], False)


def pretrain(config: Config) -> Any:
    """The demo's checkpoint: a small BERT that guessed masked words for a minute; made once."""
    folder = config.folder / "pretrained"
    if not hosts.together((folder / "config.json").exists):
        plan = jt.dense(
            1,
            jt.Length(config.pretrain_steps, "steps"),
            lr=Warmup(0.1, Linear(3e-3)),
            optimizer=Adam(clip_norm=1.0),
            batch_size=64,
        )
        hide = jt.models.MaskTokens(
            synthetic_text.MASK,
            len(synthetic_text.VOCABULARY),
            special=(synthetic_text.PAD, synthetic_text.CLS, synthetic_text.SEP),
        )
        task, text = (
            jt.models.masked_language_modelling(DEMO_SIZES),
            dataclasses.replace(synthetic_text.text(), augment=hide),
        )
        tickets = jt.fit(plan, task, text, key=config.seed, out=config.folder / "pretraining")
        hosts.together(lambda: save(tickets.tickets[0], folder))
    return jt.models.read_checkpoint(folder)


def save(ticket: jt.Ticket, folder: Path) -> None:
    """Write the demo's checkpoint."""
    if hosts.writes():
        jt.models.save_pretrained(ticket, DEMO_SIZES, folder)


def blank(config: Config) -> tuple[jt.Task, jt.Dataset]:
    """A task and data of the right sizes that hold nothing: enough to count FLOPs.

    A model is read only where its sizes are not known.
    """
    sizes, examples, classes = jt.models.TransformerConfig(), EXAMPLES.get(config.task, 635), 2
    if config.task == "paraphrases":
        sizes, examples = DEMO_SIZES, len(jt.data.paraphrases("train"))
    elif config.model == "roberta-base":
        sizes = jt.models.TransformerConfig(
            family="roberta", vocabulary=50265, positions=514, token_types=1, padding=1, eps=1e-5
        )
    elif config.model != "bert-base-uncased":
        sizes = jt.models.read_checkpoint(config.model).config
    if config.task != "paraphrases":
        classes = len(GLUE_TASKS[config.task].class_names) or None
    model = jt.models.TextClassifier(sizes, classes)
    rules, name = jt.models.ENCODER_KERNELS, str(sizes)
    shape = (examples, config.max_length)
    names = ("input_ids", "token_type_ids", "attention_mask")
    x = {
        input_name: np.broadcast_to(np.int32(input_name != "token_type_ids"), shape)
        for input_name in names
    }
    if classes is None:
        return jt.models.regression(model, prunable=rules, name=name), jt.Dataset(
            x, np.zeros(examples, np.float32), None, name=config.task
        )
    return jt.classification(model, prunable=rules, name=name), jt.Dataset(
        x, np.zeros(examples, np.int32), classes, name=config.task
    )


def title(name: str) -> str:
    """A row's name as tables print it."""
    return TITLES[name.removesuffix(UNITS)] + (", units" if name.endswith(UNITS) else "")


def metric(config: Config) -> str:
    """The name of the score that the task is judged by."""
    return "accuracy" if config.task == "paraphrases" else GLUE_TASKS[config.task].metrics[0]


def export(tickets: jt.TicketEnsemble, sizes: Any, folder: Path) -> None:
    """Write every ticket as a Hugging Face checkpoint; those that are there are left alone."""
    for number, ticket in enumerate(tickets.tickets):
        if not (folder / str(number) / "config.json").exists():
            jt.models.save_pretrained(ticket, sizes, folder / str(number))


def stored_predictions(
    tickets: jt.TicketEnsemble, validation: jt.Dataset, file: Path
) -> np.ndarray:
    """Predictions of all members on the validation set, computed once.

    Probabilities [M, N, C], of a regression values [M, N]; they are kept in `file` with the labels
    y, and with the seconds that `prediction_seconds` reads.
    """
    if file.exists():
        with np.load(file, allow_pickle=False) as stored:
            if np.array_equal(stored["y"], validation.y) and len(stored["predictions"]) == len(
                tickets
            ):
                return stored["predictions"]
    outputs = tickets.member_log_proba(validation, batch_size=32)  # compiles
    began = time.perf_counter()
    tickets.member_log_proba(validation, batch_size=32)
    seconds = time.perf_counter() - began
    predictions = outputs if validation.num_classes is None else np.exp(outputs)
    np.savez_compressed(file, predictions=predictions, y=validation.y, seconds=seconds)
    return predictions


def timed(config: Config, given: Given, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Put seconds that were measured in turns into the rows, and return how they were measured."""
    seconds = side_by_side.in_turns(
        {
            row["scheme"]: functools.partial(_short_run, config, row["scheme"], given)
            for row in rows
        },
        config.side_by_side,
    )
    for record in rows:
        record |= seconds[record["scheme"]]
    return {"timing": side_by_side.told(config.side_by_side, len(given.validation))}


def _short_run(config: Config, name: str, given: Given) -> tuple[float, float]:
    short = dataclasses.replace(config, epochs=config.epochs / side_by_side.FRACTION)
    plans = config.plan(name), short.plan(name)
    steps = [
        sum(phase.steps for phase in jt.cost(plan, given.task, given.train).phases)
        for plan in plans
    ]
    return side_by_side.one_run(
        lambda folder: jt.fit(
            plans[1],
            given.task,
            given.train,
            key=config.seed,
            out=folder,
            **config.fit_kwargs(plans[1].width),
        ),
        lambda tickets: tickets.member_log_proba(given.validation, batch_size=32),
        steps[0] / steps[1],
    )


def prediction_seconds(file: Path) -> float | None:
    """Seconds that all members took to predict the validation set once all was compiled; None of
    an older file.
    """
    with np.load(file, allow_pickle=False) as stored:
        return float(stored["seconds"]) if "seconds" in stored else None


def row(
    config: Config,
    name: str,
    tickets: jt.TicketEnsemble,
    predictions: np.ndarray,
    gain: evaluation.EnsembleGain,
    validation: jt.Dataset,
    cost: Any,
    folder: Path,
) -> dict[str, Any]:
    """The measurements of one row, as JSON."""
    y = validation.y
    classes = validation.num_classes is not None
    # Of networks that were cut to their units no masks compare.
    masked = name.endswith("_lt") and len(tickets) > 1
    overlap = evaluation.mask_overlap(tickets) if masked else None
    family = "roberta" if "roberta" in config.model else "bert"
    return {
        "scheme": name,
        "title": title(name),
        "gain": gain.to_dict(),
        "singles": gain.single_scores.ravel().tolist(),
        "scores": (
            [
                evaluation.glue_score(validation.name, member_predictions, y)
                for member_predictions in predictions
            ]
            if config.task != "paraphrases"
            else None
        ),
        "oracle": (
            evaluation.oracle_diversity(evaluation.oracle_outputs(predictions, y)).to_dict()
            if classes
            else None
        ),
        "prediction_disagreement": (
            evaluation.prediction_disagreement(np.log(np.maximum(predictions, 1e-30)))
            if classes
            else None
        ),
        "overlap": None if overlap is None else np.round(overlap, 4).tolist(),
        "mask_iou": None if overlap is None else evaluation.pair_mean(overlap),
        "densities": [ticket.info["density"] for ticket in tickets.tickets],
        "training": cost.training,
        "training_executed": cost.training_executed,
        "predict": prediction_seconds(folder / "predictions.npz"),
        "seconds": json.loads((folder / "timing.json").read_bytes())["seconds"]["total"],
        "published": multi_ticket_gain(family, config.task, name),
        "published_diversity": multi_ticket_diversity(family, config.task, name),
        "plan": cost.plan.to_json(),
        "tests": {},
        "bootstrap": {},
    }


def compare(
    config: Config,
    rows: list[dict[str, Any]],
    predictions: dict[str, np.ndarray],
    gains: dict[str, evaluation.EnsembleGain],
    y: np.ndarray,
) -> None:
    """Add the tests of every row's largest ensembles against those of BASELINE and BASE-LT."""
    size = max(config.sizes)
    scores = {scheme: gain.ensemble_scores[size].ravel() for scheme, gain in gains.items()}
    for other in ("baseline", "base_lt"):
        for record in rows:
            scheme = record["scheme"]
            if other not in scores or scheme == other:
                continue
            if len(scores[scheme]) > 1:
                p = evaluation.student_t(scores[scheme], scores[other]).pvalue
                record["tests"][other] = None if np.isnan(p) else p
            if config.resamples:
                ours, theirs = (
                    evaluation.subset_means(predictions[s], size, config.groups)
                    for s in (scheme, other)
                )
                test = evaluation.paired_bootstrap(
                    ours, theirs, y, metric(config), seed=0, resamples=config.resamples
                )
                record["bootstrap"][other] = {
                    "difference": test.difference,
                    "low": test.low,
                    "high": test.high,
                    "p": test.pvalue,
                }
