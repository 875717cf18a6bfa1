"""Values of texts that mean nothing to a network are refused on the host, wherever texts go in."""

import dataclasses

import jax
import numpy as np
import pytest

import jaxtickets as jt
from jaxtickets.dataset import Dataset
from jaxtickets.errors import DataError
from jaxtickets.models import MaskTokens, MCDropout, TextClassifier, TransformerConfig

TINY = TransformerConfig(vocabulary=12, layers=1, width=8, heads=2, intermediate=12, positions=8)
ROBERTA = dataclasses.replace(TINY, family="roberta", padding=1, positions=10, token_types=1)
PLAN = jt.dense(epochs=1, batch_size=2)
QUIET = {"key": 0, "progress": False}


def texts(examples=4, tokens=8, **more):
    ids = np.arange(examples * tokens, dtype=np.int32).reshape(examples, tokens) % 10 + 2
    x = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids, np.uint8),
        "token_type_ids": np.zeros_like(ids),
    }
    return x | {"labels": ids} if more.get("labels") else x


def put(name, value, place=(3, 5)):
    def change(x):
        changed = x[name].astype(np.int32)
        changed[place] = value
        return x | {name: changed}

    return change


ROWS = (
    r"row 3, column 5, is {}; the network looks that up in a table of {} rows: 0 to {} are allowed"
)
SEEN = r"x/attention_mask, row 3, column 5, is {}; allowed is 1 for a token that is seen and 0 for one that is not"
WRONG = {
    "a token beyond the vocabulary": (
        put("input_ids", 12),
        "x/input_ids, " + ROWS.format(12, 12, 11),
    ),
    "a token that padding was": (put("input_ids", -1), "x/input_ids, " + ROWS.format(-1, 12, 11)),
    "torch's ignored one": (put("input_ids", -100), "x/input_ids, " + ROWS.format(-100, 12, 11)),
    "a type": (put("token_type_ids", 2), "x/token_type_ids, " + ROWS.format(2, 2, 1)),
    "a type below": (put("token_type_ids", -1), "x/token_type_ids, " + ROWS.format(-1, 2, 1)),
    "a mask of 2": (put("attention_mask", 2), SEEN.format(2)),
    "an additive mask": (put("attention_mask", -10000), SEEN.format(-10000)),
}
MASKED_LM = WRONG | {
    "a label beyond": (put("labels", 12), "x/labels, row 3, column 5, is 12; allowed is a token from 0 to 11, or -100 where nothing is guessed"),
    "a label that looks ignored": (put("labels", -1), "x/labels, row 3, column 5, is -1; allowed is a token from 0 to 11, or -100"),
}  # fmt: skip


@pytest.fixture(scope="module")
def trained():
    y = np.arange(4, dtype=np.int32) % 2
    classifier = jt.classification(TextClassifier(TINY))
    masked_lm = jt.masked_language_modelling(TINY)
    return {
        "classifier": (classifier, y, jt.fit(PLAN, classifier, Dataset(texts(), y, 2), **QUIET)),
        "masked_lm": (
            masked_lm,
            y * 1.0,
            jt.fit(PLAN, masked_lm, Dataset(texts(labels=True), y * 1.0, None), **QUIET),
        ),
    }


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [("classifier", *one) for one in WRONG.values()]
    + [("masked_lm", *one) for one in MASKED_LM.values()],
    ids=[f"classifier: {name}" for name in WRONG] + [f"masked_lm: {name}" for name in MASKED_LM],
)
def test_every_door_refuses_them(trained, kind, change, words, tmp_path):
    task, y, tickets = trained[kind]
    good = texts(labels=kind == "masked_lm")
    kept = {name: value.astype(np.int32) for name, value in good.items()}
    wrong = change(kept)
    data = Dataset(wrong, y, task.num_classes)
    tickets = dataclasses.replace(
        tickets, x_spec=jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), kept)
    )
    doors = [
        lambda: jt.fit(PLAN, task, data, **QUIET),
        lambda: jt.fit(
            PLAN, task, Dataset(kept, y, task.num_classes), probe=wrong, out=tmp_path / "a", **QUIET
        ),
        lambda: tickets.predict_proba(wrong),
        lambda: tickets.member_log_proba(data),
    ]
    if kind == "classifier":
        doors += [lambda: tickets.predict(wrong), lambda: jt.evaluate(tickets, (wrong, y))]
    for door in doors:
        with pytest.raises(DataError, match=words.replace("x/", "(x|probe)/")):
            door()


def test_other_networks_of_texts_are_watched_too():
    y = np.arange(4, dtype=np.int32) % 2
    for task in (
        jt.classification(TextClassifier(ROBERTA)),
        jt.classification(MCDropout(TextClassifier(TINY), 2, 0)),
        jt.regression(TextClassifier(TINY, None)),
    ):
        data = Dataset(
            put("attention_mask", 3)(texts()), y if task.num_classes else y * 1.0, task.num_classes
        )
        with pytest.raises(DataError, match="row 3, column 5, is 3; allowed is 1 for"):
            jt.fit(PLAN, task, data, **QUIET)
    types = Dataset(put("token_type_ids", 1)(texts()), y, 2)
    with pytest.raises(
        DataError, match=r"x/token_type_ids, row 3, column 5, is 1; .* table of 1 rows: 0 to 0"
    ):
        jt.fit(PLAN, jt.classification(TextClassifier(ROBERTA)), types, **QUIET)
    long = {name: np.zeros((4, 9), np.int32) for name in ("input_ids", "attention_mask")}
    for config in (TINY, ROBERTA):
        with pytest.raises(
            DataError, match=r"texts of 9 tokens do not fit into its 8 positions; cut them to that"
        ):
            jt.fit(PLAN, jt.classification(TextClassifier(config)), Dataset(long, y, 2), **QUIET)


def test_rows_are_counted_over_the_whole_data():
    """A task's own check sees some thousand rows at a time."""
    x = {name: np.ones((9000, 2), np.int8) for name in ("input_ids", "attention_mask")}
    x["attention_mask"][8999, 1] = 7
    with pytest.raises(DataError, match=r"attention_mask, row 8999, column 1, is 7"):
        jt.fit(
            PLAN,
            jt.classification(TextClassifier(TINY)),
            Dataset(x, np.zeros(9000, np.int32), 2),
            **QUIET,
        )


def test_masked_tokens_beyond_the_networks_vocabulary_are_found_before_training():
    hide = MaskTokens(mask_token=12, vocabulary=13, share=0.9)
    data = Dataset(texts(labels=True), np.zeros(4, np.float32), None, augment=hide)
    with pytest.raises(
        DataError, match=r"x after augment/input_ids, row \d, column \d, is 12, and .*0 to 11"
    ):
        jt.fit(PLAN, jt.masked_language_modelling(TINY), data, **QUIET)
