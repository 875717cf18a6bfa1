"""The evaluation of an ensemble: what goes in, what comes out, how it prints."""

import dataclasses
import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from jaxtickets.dataset import Dataset
from jaxtickets.evaluation import (
    EvaluationError,
    accuracy,
    adaptive_ece,
    as_log_proba,
    brier,
    ece,
    evaluate,
    evaluate_predictions,
    mask_iou,
    nll,
    pairwise_kl,
    prediction_disagreement,
)

EXACT = 1e-12  # float64 sums in another order


class Linear:
    """An ensemble of linear classifiers, with the methods that `evaluate` needs: a real predictor, only a small one."""

    def __init__(self, members: int, classes: int = 4, features: int = 5):
        rng = np.random.default_rng(9)
        self.weights = rng.standard_normal((members, features, classes))
        self.masks = [{"w": rng.random((features, classes)) < 0.5} for _ in range(members)]
        self.batch_sizes = []

    def member_log_proba(self, x, batch_size=512):
        self.batch_sizes.append(batch_size)
        inputs = x.prepare(x.x) if isinstance(x, Dataset) else x
        logits = np.stack([inputs @ (mask["w"] * w) for mask, w in zip(self.masks, self.weights)])
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def examples(count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(10)
    return rng.standard_normal((count, 5)), rng.integers(0, 4, count)


def halve(x):
    return x / 2


def test_an_evaluation_is_made_of_the_metrics():
    tickets, (x, y) = Linear(3), examples()
    result = evaluate(tickets, (x, y), bins=10)
    log_p = tickets.member_log_proba(x)
    mean = as_log_proba(np.exp(log_p).mean(0))

    def five(one):
        return (
            accuracy(one, y),
            nll(one, y),
            ece(one, y, 10),
            adaptive_ece(one, y, 10),
            brier(one, y),
        )

    assert dataclasses.astuple(result.ensemble) == pytest.approx(five(mean), abs=EXACT)
    each = [five(one) for one in log_p]
    assert [dataclasses.astuple(member) for member in result.members] == each
    assert dataclasses.astuple(result.mean) == pytest.approx(
        tuple(np.mean(each, axis=0)), abs=EXACT
    )
    wanted = (prediction_disagreement(log_p), pairwise_kl(log_p), mask_iou(tickets.masks))
    assert dataclasses.astuple(result.diversity) == wanted
    assert all(0 < value < 10 for value in wanted)
    assert (result.bins, result.examples) == (10, 300)


def test_the_nll_is_that_of_the_mean_and_not_the_mean_of_nlls():
    # Probabilities of the label .9 and .1: the mean is .5.
    result = evaluate_predictions(np.log([[[0.9, 0.1]], [[0.1, 0.9]]]), [0])
    assert result.ensemble.nll == pytest.approx(math.log(2), abs=EXACT)
    assert result.mean.nll == pytest.approx(-(math.log(0.9) + math.log(0.1)) / 2, abs=EXACT)
    assert result.ensemble.nll < result.mean.nll - 0.5


def test_one_sure_mistake_does_not_spoil_the_ensemble():
    result = evaluate_predictions(as_log_proba([[[0.0, 1.0]], [[1.0, 0.0]]]), [0])
    assert result.members[0].nll == result.mean.nll == math.inf
    assert result.ensemble.nll == pytest.approx(math.log(2), abs=EXACT)
    assert "inf" in str(result)


def test_a_data_set_is_handed_over_whole():
    tickets, (x, y) = Linear(2), examples()
    data = Dataset(x, y, num_classes=4, prepare=halve)
    assert evaluate(tickets, data) == evaluate(tickets, (x / 2, y))  # so `prepare` was applied
    assert evaluate(tickets, data) != evaluate(tickets, (x, y))


def test_the_batch_size_is_left_to_the_ensemble_unless_given():
    tickets = Linear(2)
    evaluate(tickets, examples())
    evaluate(tickets, examples(), batch_size=7)
    assert tickets.batch_sizes == [512, 7]


def test_the_dictionary_is_json():
    result = evaluate(Linear(2), examples(), bins=12)
    record = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert record == result.to_dict()
    first = ["ensemble", "members", "members_mean", "diversity", "ece_bins", "examples"]
    assert list(record) == [*first, "combine", "per_class", "reliability", "parts"]
    five = ["accuracy", "nll", "ece", "adaptive_ece", "brier"]
    assert [
        list(part) for part in (record["ensemble"], *record["members"], record["members_mean"])
    ] == [five] * 4
    assert (record["combine"], record["parts"]) == ("proba", {})
    assert {name: len(values) for name, values in record["per_class"].items()} == {
        "ensemble": 4,
        "members_mean": 4,
        "examples": 4,
    }
    diagrams = [record["reliability"]["ensemble"], *record["reliability"]["members"]]
    assert [{name: len(values) for name, values in diagram.items()} for diagram in diagrams] == [
        {"count": 12, "confidence": 12, "accuracy": 12}
    ] * 3
    assert list(record["diversity"]) == ["disagreement", "kl", "mask_iou"]
    assert (record["ece_bins"], record["examples"]) == (12, 300)
    assert record["ensemble"]["nll"] == result.ensemble.nll
    assert record["diversity"]["mask_iou"] == result.diversity.mask_iou


def test_one_member():
    tickets, test = Linear(1), examples()
    result = evaluate(tickets, test)
    assert dataclasses.astuple(result.ensemble) == pytest.approx(
        dataclasses.astuple(result.members[0]), abs=EXACT
    )
    assert result.mean == result.members[0]
    assert result.to_dict()["diversity"] == {"disagreement": None, "kl": None, "mask_iou": None}
    assert "one member, no pairs" in str(result)


def test_without_masks_the_overlap_is_none():
    tickets, (x, y) = Linear(2), examples()
    result = evaluate_predictions(tickets.member_log_proba(x), y)
    assert result.to_dict()["diversity"]["mask_iou"] is None
    assert result.to_dict()["diversity"]["kl"] > 0
    assert "mask IoU no masks" in str(result)


def test_how_it_prints():
    half = {"w": np.array([True, False])}
    result = evaluate_predictions(
        np.log([[[0.9, 0.1], [0.4, 0.6]], [[0.6, 0.4], [0.7, 0.3]]]), [0, 1], [half, half]
    )
    lines = [line.split() for line in str(result).splitlines() if line.strip(" ─")]
    assert lines == [
        ["2", "examples"],
        ["accuracy", "%", "NLL", "ECE", "%", "(15", "bins)", "adaptive", "ECE", "%", "Brier"],
        ["member", "0", "100.00", "0.3081", "25.00", "25.00", "0.1700"],
        ["member", "1", "50.00", "0.8574", "55.00", "55.00", "0.6500"],
        ["mean", "of", "members", "75.00", "0.5827", "40.00", "40.00", "0.4100"],
        ["ensemble", "50.00", "0.5431", "40.00", "40.00", "0.3650"],
        ["diversity:", "disagreement", "50.00", "%,", "KL", "0.2283,", "mask", "IoU", "1.0000"],
    ]
    console = Console(file=io.StringIO(), width=100, color_system=None)
    with console.capture() as captured:
        console.print(result)
    assert [line.split() for line in captured.get().splitlines() if line.strip(" ─")] == lines
    assert "\x1b" not in str(result)


LOG_P = np.log([[[0.5, 0.5], [0.9, 0.1]], [[0.5, 0.5], [0.2, 0.8]]])


@pytest.mark.parametrize(
    ("member_log_proba", "y", "masks", "bins", "message"),
    [
        (LOG_P[0], [0, 1], None, 15, r"member_log_proba: got shape \(2, 2\), wanted \[M, B, C\]"),
        (
            LOG_P[:0],
            [0, 1],
            None,
            15,
            r"member_log_proba: got shape \(0, 2, 2\), wanted at least one",
        ),
        (
            LOG_P[:, :0],
            [],
            None,
            15,
            r"member_log_proba: got shape \(2, 0, 2\), wanted at least one",
        ),
        (
            np.where(LOG_P < -1, np.nan, LOG_P),
            [0, 1],
            None,
            15,
            r"member_log_proba: got NaN in 2 of 4 predictions",
        ),
        (np.exp(LOG_P), [0, 1], None, 15, r"member_log_proba: got exp.* These are probabilities"),
        (LOG_P, [0], None, 15, r"y: got shape \(1,\)"),
        (LOG_P, [0, 2], None, 15, r"y: got labels from 0 to 2, wanted 0 to 1"),
        (LOG_P, [0.5, 1.5], None, 15, r"y: got dtype float64, wanted integers"),
        (
            LOG_P,
            [0, 1],
            [{"w": np.ones(2, bool)}],
            15,
            r"masks: got 1, wanted one for each of 2 members",
        ),
        (LOG_P, [0, 1], None, 0, r"bins: got 0, wanted an integer of 1 or more"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(member_log_proba, y, masks, bins, message):
    with pytest.raises(EvaluationError, match=message):
        evaluate_predictions(member_log_proba, y, masks, bins)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (np.zeros((3, 5)), "test: got ndarray, wanted a Dataset, an EvaluationStream or a pair"),
        (
            (np.zeros((3, 5)),),
            "test: got tuple of 1, wanted a Dataset, an EvaluationStream or a pair",
        ),
        ((np.zeros((0, 5)), np.zeros(0, int)), "test: got no examples"),
    ],
)
def test_a_test_set_is_a_data_set_or_a_pair(test, message):
    with pytest.raises(EvaluationError, match=message):
        evaluate(Linear(2), test)
