"""The L1 penalty of a training phase, and the Multi-Ticket schemes that use it: against PyTorch, and read off a loss of zero."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from others import others
from tiny_task import data, fit, quiet, same, task

import jaxtickets as jt
from jaxtickets import masks
from jaxtickets.engine import read_metrics
from jaxtickets.plan import (
    L1,
    SGD,
    Adam,
    Collect,
    Length,
    Plan,
    Prune,
    Remember,
    Rewind,
    Start,
    Train,
)
from jaxtickets.schedules import Constant, Linear


def train(steps, lr=0.01, **options):
    return Train(Length(steps, "steps"), Constant(lr), **options)


def flat_loss(outputs, y):
    return 0 * outputs[:, 0]


def pulled(penalty, members=1, **options):
    """How far one step of gradient descent at rate 1 takes each weight towards 0, where the loss says nothing: tau * l.

    Members begin with equal weights, none of which is as small as 0.05. They are drawn here, once:
    two programs might draw them with other last bits.
    """
    params, state = jax.device_get(quiet().init(jax.random.key(0), data().x[:1]))
    begun = jax.tree.map(lambda p: np.where(np.abs(p) < 0.05, np.float32(0.05), p), params), state

    def init(key, x):
        return jax.tree.map(jnp.asarray, begun)

    still = dataclasses.replace(quiet(), init=init, loss=flat_loss)
    phases = (
        Start(members),
        train(1, lr=1.0, optimizer=SGD(momentum=0), penalty=penalty),
        Collect(),
    )
    before = fit(Plan("nothing", (Start(), Collect()), 16), of=still).tickets[0].params
    after = fit(Plan("pulled", phases, 16), of=still, **options).tickets
    return [jax.tree.map(lambda a, b: np.sign(a) * (a - b), before, t.params) for t in after]


def test_random_coefficients_are_an_exact_share_and_the_members_own():
    one, other = pulled(L1(0.03, "random", share=0.75), members=2)
    for pull in (one, other):
        for path, size in (("w1", 128), ("w2", 48)):
            np.testing.assert_allclose(
                pull[path][pull[path] != 0], 0.03, atol=1e-7
            )  # float32 of weights of order 1
            assert np.count_nonzero(pull[path]) == 0.75 * size
        assert not pull["b"].any()  # no mask covers it
    assert (one["w1"] != other["w1"]).any()
    (again,) = pulled(L1(0.03, "random", share=0.75), members=1)
    np.testing.assert_array_equal(again["w1"], one["w1"])


@pytest.mark.parametrize("decoupled", [False, True])
def test_all_coefficients(decoupled):
    (pull,) = pulled(L1(0.03, "all", decoupled=decoupled))
    for path in ("w1", "w2"):
        np.testing.assert_allclose(pull[path], 0.03, atol=1e-7)
    assert not pull["b"].any()


def test_coefficients_of_active_tickets_are_the_mean_of_the_earlier_seeds_masks():
    """Seed i of three, by hand: masks from a random pruning, then one step in which only the penalty moves weights."""
    still = dataclasses.replace(quiet(), loss=flat_loss)
    pull = train(1, lr=1.0, optimizer=SGD(momentum=0), penalty=L1(1e-3, "earlier"))
    phases = (Start(3), Collect(), pull, Collect(), Prune(0.5, "random"), Collect())
    tickets = fit(Plan("active", phases, 16), of=still).tickets
    first, trained, pruned = (
        tickets[::3],
        tickets[1::3],
        tickets[2::3],
    )  # (a seed's own first ticket does not count)
    for i in range(3):
        for path in ("w1", "w2"):
            moved = np.abs(first[i].params[path]) - np.abs(trained[i].params[path])
            mean = np.mean([p.mask[path] for p in pruned[:i]], 0) if i else np.zeros_like(moved)
            large = np.abs(first[i].params[path]) > 2e-3  # a smaller one may cross 0
            np.testing.assert_allclose(moved[large], 1e-3 * mean[large], atol=1e-7)
    assert {0.0, 0.5, 1.0} == set(np.unique(np.mean([p.mask["w1"] for p in pruned[:2]], 0)))


@pytest.mark.parametrize("sparsity", [0.0, 0.5])
def test_the_penalty_is_a_term_of_the_loss(sparsity):
    """Six steps of Adam with clipping, against PyTorch's own; tau falls from step to step."""
    torch = others("torch")
    strength, adam = Linear(0.2, 0.02), Adam(clip_norm=0.5)
    shuffled = data(augment=False)
    whole = dataclasses.replace(
        shuffled, x=shuffled.x[:16], y=shuffled.y[:16]
    )  # one batch: the order does not matter
    start = Start(sparsity=sparsity, distribution="uniform")
    begun = fit(Plan("begun", (start, Collect()), 16), whole, of=quiet()).tickets[0]
    ended = fit(
        Plan("l1", (start, train(6, optimizer=adam, penalty=L1(strength, "all")), Collect()), 16),
        whole,
        of=quiet(),
    ).tickets[0]
    weights = {
        path: torch.tensor(np.asarray(p), requires_grad=True) for path, p in begun.params.items()
    }
    keep = {
        path: torch.tensor(np.broadcast_to(np.asarray(m), begun.params[path].shape).copy())
        for path, m in begun.mask.items()
    }
    optimizer = torch.optim.Adam(list(weights.values()), lr=0.01)
    for step in range(6):
        hidden = torch.tanh(torch.tensor(whole.x) @ weights["w1"] + weights["b"])
        loss = torch.nn.functional.cross_entropy(
            hidden @ weights["w2"], torch.tensor(whole.y, dtype=torch.long)
        )
        loss = loss + strength(step, 6) * sum(weights[path].abs().sum() for path in ("w1", "w2"))
        optimizer.zero_grad()
        loss.backward()
        for path, weight in weights.items():
            weight.grad *= keep[path]
        torch.nn.utils.clip_grad_norm_(list(weights.values()), 0.5)
        optimizer.step()
    for path, weight in weights.items():
        # six float32 steps of two libraries; weights within 1e-4 of 0 may differ in sign for a step
        np.testing.assert_allclose(ended.params[path], weight.detach().numpy(), atol=2e-5)


@pytest.mark.parametrize("scheme", ["baseline", "bagging", "base_lt", "active_lt", "random_lt"])
def test_every_scheme_runs_resumes_and_does_not_depend_on_the_layout(scheme, tmp_path):
    plan = jt.multi_ticket(
        scheme, 2, sparsity=0.5, rounds=1, epochs=1, tau=0.2, lr=Linear(0.02), batch_size=16
    )
    whole = fit(plan, of=task())
    assert len(whole) == 2
    for one in whole:
        assert masks.density(one.mask) == pytest.approx(0.5 if scheme.endswith("lt") else 1.0)
    fit(plan, of=task(), out=tmp_path / "run", checkpoint_every=0)
    kept = read_metrics(tmp_path / "run")
    assert {line["lr"] for line in kept} == {0.0}  # a line at the end of every training
    if scheme != "active_lt":
        together = fit(plan, of=task(), layout=jt.Layout(2, "unroll"))
        for a, b in zip(whole, together, strict=True):  # a program for two may be fused otherwise
            jax.tree.map(np.testing.assert_array_equal, a.mask, b.mask)
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), a[0], b[0])
    else:
        with pytest.raises(ValueError, match="one after another"):
            fit(plan, of=task(), layout=jt.Layout(2, "unroll"))
    assert all(
        same(a, b)
        for a, b in zip(
            whole, jt.load(tmp_path / "run" / "tickets.safetensors", task()), strict=True
        )
    )


def test_a_penalty_lowers_the_overlap_of_masks():
    """Equal first weights, as from one pretrained network: random penalties take the masks apart."""

    def init(key, x):
        return quiet().init(jax.random.key(0), x)

    pretrained = dataclasses.replace(quiet(), init=init)
    how = {
        "members": 3,
        "sparsity": 0.5,
        "rounds": 2,
        "epochs": 2,
        "batch_size": 16,
        "lr": Linear(0.02),
    }

    def overlap(scheme, **options):
        found = fit(jt.multi_ticket(scheme, **how, **options), of=pretrained).masks
        return np.mean([masks.iou(found[i], found[j]) for i in range(3) for j in range(i)])

    base = overlap("base_lt")
    assert base > 0.85
    assert overlap("random_lt", tau=3.0) < base - 0.05
    assert overlap("active_lt", tau=3.0) < base - 0.05


def test_rounds_go_back_to_the_first_weights():
    """After the last rewind a ticket is its first weights under its mask, the head too; or the head stays trained."""
    phases = jt.imp(1, 0.5, 2, 1, lr=Linear(0.02), batch_size=16).phases[:-2]
    stays = jt.imp(
        1, 0.5, 2, 1, lr=Linear(0.02), batch_size=16, rewind_head=False, head=("w2",)
    ).phases[:-2]
    assert isinstance(phases[-1], Rewind)
    assert isinstance(phases[1], Remember)
    (begun, back), (same_begun, kept) = (
        fit(Plan("imp", (*found[:2], Collect(), *found[2:], Collect()), 16), of=quiet())
        for found in (phases, stays)
    )
    first = begun.params
    assert same(same_begun, begun)
    for path in first:
        np.testing.assert_array_equal(back.params[path], np.where(back.mask[path], first[path], 0))
    np.testing.assert_array_equal(kept.params["w1"], np.where(kept.mask["w1"], first["w1"], 0))
    assert np.abs(kept.params["w2"] - np.where(kept.mask["w2"], first["w2"], 0)).max() > 1e-3
