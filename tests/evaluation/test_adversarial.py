"""Adversarial examples against torch's gradients and by hand, and what an evaluation says of them."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from others import others

import jaxtickets as jt
from jaxtickets.data import Standardise
from jaxtickets.dataset import Dataset
from jaxtickets.evaluation import Adversarial, EvaluationError, fgsm, pgd
from jaxtickets.evaluation.attacks import _gradient_program

CLASSES, PREPARE = 4, Standardise((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


class Small(nn.Module):
    """A convolution, a pooling and a classifier."""

    num_classes: int = CLASSES

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3), padding="SAME", name="conv")(x))
        return nn.Dense(self.num_classes, name="dense")(x.mean((1, 2)))


def ensemble(task, shape, tickets=3):
    example = jnp.zeros((1, *shape), jnp.float32)
    drawn = [task.init(jax.random.key(seed), example) for seed in range(tickets)]
    return jt.TicketEnsemble(
        task,
        tuple(
            jt.Ticket(p, jax.tree.map(lambda _: np.ones((), bool), p), s, {})
            for p, s in jax.device_get(drawn)
        ),
        jax.ShapeDtypeStruct(shape, jnp.float32),
    )


def images(examples=13, size=6):
    rng = np.random.default_rng(3)
    x = rng.integers(0, 256, (examples, size, size, 3)).astype(np.uint8)
    return Dataset(x, rng.integers(0, CLASSES, examples).astype(np.int32), CLASSES, prepare=PREPARE)


TICKETS, TEST = ensemble(jt.classification(Small()), (6, 6, 3)), images()


def torch_gradient(tickets, x, y):
    """Cross-entropy of the mean of those tickets' probabilities, by torch's autograd: gradient with respect to the pixels."""
    torch = others("torch")
    from torch.nn import functional

    def tensor(array):
        return torch.from_numpy(np.array(array, np.float32))

    pixels = tensor(x).requires_grad_()
    prepared = (pixels / 255 - tensor(PREPARE.mean)) / tensor(PREPARE.std)
    proba = 0
    for ticket in tickets:
        conv, dense = ticket.params["conv"], ticket.params["dense"]
        hidden = functional.conv2d(
            prepared.permute(0, 3, 1, 2),
            tensor(conv["kernel"]).permute(3, 2, 0, 1),
            tensor(conv["bias"]),
            padding=1,
        )
        logits = functional.linear(
            functional.relu(hidden).mean((2, 3)), tensor(dense["kernel"]).T, tensor(dense["bias"])
        )
        proba = proba + torch.softmax(logits, -1) / len(tickets)
    loss = functional.nll_loss(
        torch.log(proba), torch.from_numpy(y.astype(np.int64)), reduction="sum"
    )
    loss.backward()
    return pixels.grad.numpy()


def torch_attack(tickets, test, step, steps, radius):
    first = test.x.astype(np.float32)
    x = first
    for _ in range(steps):
        gradient = torch_gradient(tickets, x, test.y)
        x = np.clip(
            x + np.float32(255 * step) * np.sign(gradient),
            first - np.float32(255 * radius),
            first + np.float32(255 * radius),
        )
        x = np.clip(x, 0, 255)
    return x


def which(on):
    return TICKETS.members if on is None else TICKETS.members[on : on + 1]


@pytest.mark.parametrize("on", [0, 2, None])
def test_fgsm_is_torchs(on):
    wanted = torch_gradient(which(on), TEST.x, TEST.y)
    found = fgsm(TICKETS, TEST, on=on, step=0.125, batch_size=5)
    # Of a pixel whose gradient is nearly 0 rounding may choose the sign; a pixel at 0 or 255 may not move.
    clear = (np.abs(wanted) > 1e-5 * np.abs(wanted).max()) & (TEST.x > 0) & (TEST.x < 255)
    assert clear.mean() > 0.98
    assert (np.sign(found - TEST.x) == np.sign(wanted))[clear].all()
    np.testing.assert_array_equal(
        found[clear], torch_attack(which(on), TEST, 0.125, 1, 0.125)[clear]
    )
    assert found.dtype == np.float32
    assert (found.min(), found.max()) == (0, 255)


@pytest.mark.parametrize("on", [1, None])
def test_pgd_is_torchs(on):
    found = pgd(TICKETS, TEST, on=on, step=4 / 255, steps=5, radius=10 / 255, batch_size=6)
    wanted = torch_attack(which(on), TEST, 4 / 255, 5, 10 / 255)
    # A sign that rounding chooses leaves a pixel elsewhere; integer pixels and steps leave no other difference.
    assert (found == wanted).mean() > 0.99
    assert np.abs(found - TEST.x).max() == 10


def test_one_step_of_pgd_as_long_as_its_radius_is_fgsm():
    np.testing.assert_array_equal(
        pgd(TICKETS, TEST, step=0.1, steps=1, radius=0.1), fgsm(TICKETS, TEST, step=0.1)
    )


def test_a_random_start_is_within_the_radius_and_by_key():
    first, again, other = (
        pgd(TICKETS, TEST, steps=1, step=1e-6, key=jax.random.key(seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.9
    moved = first - TEST.x
    assert np.abs(moved).max() <= 8.0001  # 1e-5 of a pixel is what a float32 of 255 resolves
    # Uniform over [-8, 8]: deviation 16 / sqrt(12) = 4.62, but for pixels at the ends of the range.
    assert 4.3 < moved[(TEST.x > 8) & (TEST.x < 247)].std() < 4.9


def linear(*kernels, bias=(0.0, 0.0)):
    task = jt.classification(
        (lambda key, x: ({}, {}), lambda p, s, x, train, key: (x @ p["w"] + p["b"], s)),
        num_classes=2,
        name="linear",
    )
    made = [
        jt.Ticket(
            *(
                {"w": np.array(k, np.float32), "b": np.array(bias, np.float32)},
                {"w": np.ones((), bool), "b": np.ones((), bool)},
                {},
                {},
            )
        )
        for k in kernels
    ]
    return jt.TicketEnsemble(task, tuple(made), jax.ShapeDtypeStruct((2,), jnp.float32))


def test_two_linear_members_by_hand():
    """d(-log p_y)/dx = (1 - p_y) (w_other - w_y): the first member's loss rises with x0, the second's with x1."""
    tickets = linear([[0, 1], [1, 0]], [[4, 0], [0, 4]])
    x, y = np.array([[0.5, 0.5]], np.float32), np.array([0])
    assert fgsm(tickets, (x, y), on=0, step=0.25).tolist() == [[0.75, 0.25]]
    assert fgsm(tickets, (x, y), on=1, step=0.25).tolist() == [[0.25, 0.75]]
    # Both give p = 1/2, and dp/dx = p (1 - p) (w_y - w_other) is four times as long in the second.
    assert fgsm(tickets, (x, y), step=0.25).tolist() == [[0.25, 0.75]]
    assert fgsm(tickets, (x, y), step=1.0).tolist() == [[0.0, 1.0]]  # clipped


def test_what_underflows_as_a_probability_still_leads():
    tickets = linear([[-300, 300], [100, -100]], [[100, -100], [-600, 600]])
    x, y = np.array([[0.5, 0.5]], np.float32), np.array([0])
    # log p is about -200 of the first and -500 of the second: the mean's gradient is the first's.
    assert (
        fgsm(tickets, (x, y), step=0.25).tolist()
        == fgsm(tickets, (x, y), on=0, step=0.25).tolist()
        == [[0.75, 0.25]]
    )
    assert fgsm(tickets, (x, y), on=1, step=0.25).tolist() == [[0.25, 0.75]]


def test_the_part_says_how_many_stay_right():
    label = TICKETS.predict(TEST)
    test = dataclasses.replace(
        TEST, y=np.where(np.arange(13) < 10, label, (label + 1) % CLASSES).astype(np.int32)
    )
    result = Adversarial(step=0.06)(TICKETS, test, batch_size=5)
    attacked = [
        dataclasses.replace(test, x=fgsm(TICKETS, test, on=on, step=0.06)) for on in (0, 1, 2, None)
    ]
    right = [(TICKETS.predict(one) == test.y).mean() for one in attacked]
    assert result["crafted_on_members"] == pytest.approx(right[:3], abs=1e-12)
    assert result["crafted_on_ensemble"] == pytest.approx(right[3], abs=1e-12)
    assert result["clean"] == pytest.approx(10 / 13, abs=1e-12)
    assert (result["min"], result["mean"], result["max"]) == (
        min(right[:3]),
        pytest.approx(np.mean(right[:3])),
        max(right[:3]),
    )
    assert result["crafted_on_ensemble"] < result["clean"]
    assert result["min"] < result["max"]  # another order of members would be another result
    assert (result["attack"], result["step"], result["examples"]) == ("fgsm", 0.06, 13)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_the_part_with_pgd_and_random_starts():
    part = Adversarial("pgd", steps=2, key=0)
    result = part(TICKETS[:1], TEST)
    assert result == part(TICKETS[:1], TEST)
    assert (result["steps"], result["radius"], result["step"]) == (2, 8 / 255, 2 / 255)
    assert result["crafted_on_members"] == [result["crafted_on_ensemble"]]


@pytest.mark.parametrize("combine", ["proba", "logits", "vote"])
def test_predictions_are_combined_as_told(combine):
    log_p = np.log([[[0.05, 0.95]], [[0.6, 0.4]], [[0.6, 0.4]]])
    tickets = linear(*([[0, 0], [0, 0]],) * 3)
    for ticket, one in zip(tickets.members, log_p):
        ticket.params["w"] = np.array([one[0], [0, 0]], np.float32)
    # The mean of the probabilities, and of their logs, is for class 1; two of three votes are for class 0.
    test = (np.array([[1.0, 0.0]], np.float32), np.array([1]))
    assert Adversarial(step=1e-6)(tickets, test, combine=combine)["clean"] == (combine != "vote")


def test_a_head_is_a_member():
    """Two tickets of two heads are attacked as the four networks that they would make."""
    rng = np.random.default_rng(5)
    kernels, (x, y) = (
        rng.normal(size=(2, 2, 2, 2)),
        (rng.random((9, 2)).astype(np.float32), rng.integers(0, 2, 9)),
    )
    plain = linear(*kernels.reshape(4, 2, 2))
    both = dataclasses.replace(
        plain.task,
        apply=lambda p, s, x, train, key: (jnp.stack([x @ w for w in p["w"]]), s),
        heads=2,
    )
    tickets = jt.TicketEnsemble(
        both,
        tuple(
            jt.Ticket({"w": np.float32(pair)}, {"w": np.ones((), bool)}, {}, {}) for pair in kernels
        ),
        plain.x_spec,
    )
    for on in (0, 1, 2, 3, None):
        np.testing.assert_array_equal(fgsm(tickets, (x, y), on=on), fgsm(plain, (x, y), on=on))
    assert Adversarial()(tickets, (x, y)) == Adversarial()(plain, (x, y))
    with pytest.raises(EvaluationError, match="0 to 3"):
        fgsm(tickets, (x, y), on=4)


def test_there_is_one_program_for_all_tickets_and_batches():
    _gradient_program.cache_clear()
    Adversarial("pgd", steps=2)(TICKETS, TEST, batch_size=4)
    assert _gradient_program.cache_info().currsize == 1
    assert _gradient_program(TICKETS.task, PREPARE)._cache_size() == 1


def round_down(x):
    return jnp.floor(x)


@pytest.mark.parametrize(
    ("test", "how", "says"),
    [
        (dataclasses.replace(TEST, x={"input_ids": TEST.x}), {}, "x of arrays is a dict of arrays"),
        (
            dataclasses.replace(TEST, x=TEST.x.astype(np.int32)),
            {},
            "is int32; wanted uint8 or floats",
        ),
        (
            dataclasses.replace(TEST, x=TEST.x - 300.0),
            {},
            r"from -300 to .*outside of 0 to 255. Give pixels=\(low, high\)",
        ),
        (dataclasses.replace(TEST, prepare=round_down), {}, "the gradient is 0 for every pixel"),
        (TEST.take(slice(0, 0)), {}, "got no examples"),
        (dataclasses.replace(TEST, y=TEST.y + CLASSES), {}, "got labels from"),
        (TEST.x, {}, "got ndarray, wanted a Dataset"),
        (TEST, {"on": 3}, "got 3, wanted a member's number, 0 to 2"),
        (TEST, {"on": "all"}, "got 'all'"),
        (TEST, {"step": 8}, "step: got 8, wanted a share"),
        (TEST, {"pixels": (1, 0)}, "of which the first is smaller"),
        (TEST, {"batch_size": 0}, "batch_size: got 0"),
    ],
)
def test_what_cannot_be_attacked_is_told(test, how, says):
    with pytest.raises(EvaluationError, match=says):
        fgsm(TICKETS, test, **how)


def test_other_ensembles_tests_and_attacks_are_told():
    class Images:
        name, y, classes = "pictures", TEST.y, None

        def __len__(self):
            return len(TEST)

        def in_order(self, batch_size):
            yield TEST.prepare(TEST.x)

    with pytest.raises(EvaluationError, match="pictures is a stream"):
        Adversarial()(TICKETS, Images())
    with pytest.raises(EvaluationError, match="is a regression"):
        Adversarial()(
            dataclasses.replace(TICKETS, task=dataclasses.replace(TICKETS.task, num_classes=None)),
            TEST,
        )
    with pytest.raises(EvaluationError, match="wanted a TicketEnsemble"):
        Adversarial()([1, 2], TEST)
    with pytest.raises(EvaluationError, match="wanted 'fgsm' or 'pgd'"):
        Adversarial("deepfool")
    with pytest.raises(EvaluationError, match="steps: got 0"):
        pgd(TICKETS, TEST, steps=0)
    with pytest.raises(EvaluationError, match="fgsm starts at the images"):
        Adversarial(key=0)
    with pytest.raises(EvaluationError, match="combine: got 'mean'"):
        Adversarial()(TICKETS, TEST, combine="mean")


def test_the_range_is_that_of_the_data():
    digits = dataclasses.replace(
        TEST, x=(TEST.x // 16).astype(np.uint8), prepare=dataclasses.replace(PREPARE, scale=16.0)
    )
    assert np.abs(fgsm(TICKETS, digits, step=0.125) - digits.x).max() == 2
    scaled = dataclasses.replace(TEST, x=TEST.x / np.float32(255), prepare=jnp.asarray)
    assert np.abs(fgsm(TICKETS, scaled, step=0.125) - scaled.x).max() == pytest.approx(
        0.125, abs=1e-6
    )  # float32 of 1
    assert np.abs(
        fgsm(TICKETS, scaled, step=0.125, pixels=(-1, 3)) - scaled.x
    ).max() == pytest.approx(0.5, abs=1e-6)
