"""What a user adds in a file of his own: a score, a growth rule, a structure, a phase, a schedule, an optimizer.

Nothing here touches the package: everything is defined below, and known by being defined.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_task import data, edst, fit, leaves, task

import jaxtickets as jt
from jaxtickets import engine, ledger, masks
from jaxtickets.plan import (
    SGD,
    Collect,
    Evolve,
    Fork,
    Gradual,
    Length,
    Optax,
    Optimizer,
    Phase,
    Plan,
    PlanError,
    Prune,
    Start,
    Train,
)

TRAIN = Train(Length(1), jt.schedules.Constant(0.05), SGD(0.9))


def plan(*phases, name="mine"):
    return Plan(name, phases, batch_size=16)


def one(some_plan, **options):
    return fit(some_plan, **options).tickets[0]


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


# -- a score and a growth rule ----------------------------------------------------------------------


@jt.scores.register("small first", needs=("grads",))
def small_first(inputs):
    return jax.tree.map(lambda p, g: -jnp.abs(p) + 0 * g, inputs.params, inputs.grads)


def test_a_score_of_ones_own_prunes_grows_and_goes_to_json():
    largest = one(plan(Start(), Prune(0.5), Collect()))
    smallest = one(plan(Start(), Prune(0.5, "small first"), Collect()))
    for path in ("w1", "w2"):  # one threshold over both: what one keeps the other prunes
        assert (largest.mask[path] ^ smallest.mask[path]).all()
    grown = plan(
        Start(1, 0.5), Train(Length(2), evolve=Evolve(3, 0.4, growth="small first")), Collect()
    )
    assert Plan.from_json(grown.to_json()) == grown
    # Of weights that are pruned all are 0: ties, of which the first are taken; random growth takes others.
    other = dataclasses.replace(grown.phases[1], evolve=Evolve(3, 0.4, growth="random"))
    assert not equal(one(grown).mask, one(plan(grown.phases[0], other, Collect())).mask)
    started = one(plan(grown.phases[0], Collect()))
    assert masks.counts(one(grown).mask) == masks.counts(started.mask)


def test_a_score_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(PlanError, match=r"scores is one of .*grasp.*snip.*synflow; got 'snap'"):
        Prune(0.5, "snap")


def sixteenths(key, x):
    """Odd sixteenths, which every program draws to the same bits; normal numbers it may not."""
    params, state = task().init(key, x)
    return jax.tree.map(
        lambda p: jax.random.randint(key, p.shape, -8, 8) / 8 + 0.0625, params
    ), state


@pytest.mark.parametrize("score", ["snip", "grasp", "synflow"])
def test_pruning_before_training_by_start_is_that_by_prune(score):
    """At the first batch, with the lineage's own key: in Start and in Prune right after it."""
    of = dataclasses.replace(task(), init=sixteenths)
    started = one(plan(Start(sparsity=0.6, scores=score), TRAIN, Collect()), of=of)
    pruned = one(plan(Start(), Prune(0.6, score), TRAIN, Collect()), of=of)
    assert equal(started.params, pruned.params)
    covered = masks.size(started.mask)
    assert masks.count(started.mask) == covered - math.floor(0.6 * covered)


def test_snip_of_the_engine_is_the_score_of_the_batch_that_comes_next():
    """Worked with the batch read from the feed: |w * dL/dw| of the first lineage."""
    points, noiseless = data(augment=False), task()
    ticket = one(plan(Start(), Prune(0.5, "snip"), Collect()), train=points)
    key = jt.member_keys(0, 1)[0]
    params, state = noiseless.init(jax.random.fold_in(key, 0), points.x[:2])
    order = jax.random.permutation(jax.random.fold_in(jax.random.fold_in(key, 2), 0), 96)[:16]
    draw = jax.random.fold_in(jax.random.fold_in(key, 7), 0)
    _, model_key, _ = jax.random.split(draw, 3)

    def loss(params):
        outputs, _ = noiseless.apply(params, state, points.x[order], True, model_key)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, points.y[order]).mean()

    grads = jax.grad(loss)(params)
    scores = np.concatenate([np.abs(params[w] * grads[w]).ravel() for w in ("w1", "w2")])
    kept = np.concatenate([ticket.mask[w].ravel() for w in ("w1", "w2")])
    assert scores[kept].min() >= scores[~kept].max() * (1 - 1e-5)  # rounding between two programs


# -- a structure -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class WholeInputs(masks.Structure):
    """All weights of an input, or none."""

    def keep(self, scores, count, where=None):
        def rows(leaf, n, ok):
            size = leaf.shape[-1]
            ok = None if ok is None else ok.any(-1)
            kept = masks.selection.keep_largest(leaf.astype(jnp.float32).sum(-1), n // size, ok)
            return jnp.broadcast_to(kept[..., None], leaf.shape)

        leaves_, tree = jax.tree.flatten(scores)
        where = [None] * len(leaves_) if where is None else jax.tree.leaves(where)
        return jax.tree.unflatten(tree, map(rows, leaves_, jax.tree.leaves(count), where))


STRUCTURES = {
    "of one's own": (WholeInputs(), lambda m: (m.all(1) | ~m.any(1)).all()),
    "NM(2, 4)": (masks.NM(2, 4), lambda m: (m.reshape(-1, 4, m.shape[1]).sum(1) <= 2).all()),
    "Blocks(4, 1)": (
        masks.Blocks(4, 1),
        lambda m: np.isin(m.reshape(-1, 4, m.shape[1]).sum(1), (0, 4)).all(),
    ),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_masks_look_as_their_structure_says_in_every_phase(name):
    structure, holds = STRUCTURES[name]
    uniform = Start(1, 0.5, "uniform", structure=structure)
    evolving = Train(Length(2), evolve=Evolve(3, 0.5, structure=structure))
    gradual = Train(Length(2), evolve=Gradual(0.5, update_every=2, structure=structure))
    for phases in (
        (uniform, TRAIN),
        (uniform, evolving, jt.plan.Escape(0.5, structure=structure)),
        (Start(), TRAIN, Prune(0.5, scope="layerwise", structure=structure)),
        (Start(), gradual),
        (Start(), TRAIN, Fork(2, "random", 0.5, structure=structure, keep_dense=())),
    ):
        ticket = one(plan(*phases, Collect()))
        for path in ("w1", "w2"):
            assert 0 < ticket.mask[path].sum() <= ticket.mask[path].size / 2
            assert holds(ticket.mask[path]), (phases, path)
            assert not ticket.params[path][~ticket.mask[path]].any()
    assert Plan.from_json(plan(uniform, evolving, Collect()).to_json()).phases[0] == uniform


# -- a phase, with a cost ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Perturb(Phase):
    """Noise on the surviving weights."""

    scale: float = 0.1

    def check_after(self, before):
        if before.previous is None or before.previous.trains_with is None:
            raise PlanError("there is nothing to perturb; put a Train before it.")


@engine.run_phase.register
def perturb(phase: Perturb, run, group, index, state, done=0):
    def noisy(key, params, mask):
        key = jax.random.fold_in(key, 99)
        return masks.apply(
            mask, jax.tree.map(lambda p: p + phase.scale * jax.random.normal(key, p.shape), params)
        )

    lineage = state.lineage
    params = jax.vmap(noisy)(group.keys, lineage.params, lineage.mask)
    moved = lineage._replace(params=group.place(params))
    yield state._replace(lineage=moved), engine.Message(f"perturbed by {phase.scale}")


@ledger.phase_cost.register
def _(phase: Perturb, before):
    return ledger.Costs(before.kept, 1000.0)


def test_a_phase_of_ones_own_is_checked_run_resumed_costed_and_written(tmp_path, capfd):
    perturbed = plan(Start(1, 0.5), TRAIN, Perturb(0.5), TRAIN, Collect())
    assert Plan.from_json(perturbed.to_json()) == perturbed
    assert "3. Perturb(scale=0.5)" in str(perturbed)
    with pytest.raises(PlanError, match=r"phase 2, Perturb\(\): there is nothing to perturb"):
        plan(Start(), Perturb(), Collect())
    ticket = one(perturbed, out=tmp_path / "run", progress=True)
    assert "phase 3 of 5: perturbed by 0.5" in capfd.readouterr().err
    plain = one(plan(Start(1, 0.5), TRAIN, TRAIN, Collect()))
    assert equal(ticket.mask, plain.mask)
    assert not equal(ticket.params, plain.params)
    costs = jt.cost(perturbed, task(), data())
    assert [row.flops for row in costs.phases if row.name.startswith("Perturb")] == [16 * 1000.0]


def test_a_phase_that_does_nothing_yet_says_what_to_register():
    @dataclasses.dataclass(frozen=True)
    class Idle(Phase):
        pass

    with pytest.raises(
        NotImplementedError, match=r"Idle: register what it does with jaxtickets.engine.run_phase"
    ):
        fit(plan(Start(), Idle(), Collect()))


def test_another_function_for_a_score_is_another_run(tmp_path):
    jt.scores.register("mine now")(lambda inputs: jax.tree.map(jnp.abs, inputs.params))
    pruned = plan(Start(), Prune(0.5, "mine now"), TRAIN, Collect())
    fit(pruned, out=tmp_path)
    jt.scores.register("mine now")(
        lambda inputs: jax.tree.map(lambda p: -jnp.abs(p), inputs.params)
    )
    with pytest.raises(jt.RunError, match="what parts and scores of the plan do"):
        fit(pruned, out=tmp_path)


# -- schedules and optimizers ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Sawtooth(jt.schedules.Schedule):
    """Down to 0 again and again."""

    peak: float
    teeth: int = 2

    def __call__(self, step, steps):
        share = step / steps * self.teeth
        return self.peak * (1 - share % 1)


def test_a_schedule_of_ones_own():
    sawtooth = plan(Start(), Train(Length(1), Sawtooth(0.1)), Collect())
    assert Plan.from_json(sawtooth.to_json()) == sawtooth
    assert not equal(one(sawtooth).params, one(plan(Start(), Train(Length(1)), Collect())).params)


def test_lion_by_its_name_is_optax_lion():
    """Step for step, in a loop of our own over the batches that the engine takes."""
    points = data(augment=False)
    lion = plan(
        Start(), Train(Length(1), jt.schedules.Constant(0.01), Optax("lion", b1=0.8)), Collect()
    )
    assert Plan.from_json(lion.to_json()) == lion
    ticket = one(lion, train=points)
    key = jt.member_keys(0, 1)[0]
    params, state = task().init(jax.random.fold_in(key, 0), points.x[:2])
    tx = optax.lion(0.01, b1=0.8)
    moments = tx.init(params)
    order = jax.random.permutation(jax.random.fold_in(jax.random.fold_in(key, 2), 0), 96)
    for step, rows in enumerate(np.asarray(order).reshape(6, 16)):
        _, model_key = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, 3), step))

        def loss(params, rows=rows, model_key=model_key):
            outputs, _ = task().apply(params, state, points.x[rows], True, model_key)
            return optax.softmax_cross_entropy_with_integer_labels(outputs, points.y[rows]).mean()

        updates, moments = tx.update(jax.grad(loss)(params), moments, params)
        params = optax.apply_updates(params, updates)
    for ours, theirs in zip(leaves(ticket.params), leaves(params), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)  # rounding of two programs, six steps


@pytest.mark.parametrize(
    "name", ["adamw", "lion", "adabelief", "rmsprop", "radam", "yogi", "lamb", "sm3"]
)
def test_optimizers_of_optax_keep_pruned_weights_at_0(name):
    momentum = {"momentum": 0.9} if name in ("rmsprop", "sm3") else {}
    train = Train(Length(2), jt.schedules.Constant(0.01), Optax(name, **momentum), Evolve(3, 0.3))
    ticket = one(plan(Start(1, 0.5), train, Collect()))
    for path in ("w1", "w2"):
        assert not ticket.params[path][~ticket.mask[path]].any()
    assert all(np.isfinite(leaf).all() for leaf in leaves(ticket.params))


@dataclasses.dataclass(frozen=True)
class SignDescent(Optimizer):
    """The sign of the gradient."""


@engine.build_optimizer.register
def _(spec: SignDescent, lr, momentum):
    return optax.chain(optax.stateless(lambda u, p: jax.tree.map(jnp.sign, u)), optax.scale(-lr))


def test_an_optimizer_of_ones_own():
    signed = plan(
        Start(), Train(Length(1, "steps"), jt.schedules.Constant(0.125), SignDescent()), Collect()
    )
    before = one(plan(Start(), Collect()))
    moved = jax.tree.map(lambda a, b: a - b, one(signed).params, before.params)
    assert {round(abs(float(m)), 5) for leaf in leaves(moved) for m in leaf.ravel()} <= {0.125, 0.0}


WRONG = {
    "an optax transform": (
        lambda: Train(Length(1), optimizer=optax.lion(1e-4)),
        r'any of optax.s by name, Optax\("lion"\)',
    ),
    "a name": (lambda: Optax("lions"), "optax has no optimizer 'lions'; did you mean 'lion'"),
    "no text": (lambda: Optax(3), "optax has no optimizer 3; one is"),
    "a keyword": (lambda: Optax("lion", b3=1), "optax.lion has no keyword 'b3'; it has b1, b2"),
    "a function": (lambda: Optax("adamw", mask=abs), "keywords are numbers and texts, .* mask is"),
    "a decay by path": (
        lambda: Optax("lion", overrides=(jt.plan.Override("b", weight_decay=0.1),)),
        "takes no weight decay by path",
    ),
    "no structure": (
        lambda: Start(structure="2:4"),
        r"Start's structure is a .*such as NM\(2, 4\); got '2:4'",
    ),
    "no rounds": (lambda: Prune(0.5, rounds=0), "rounds is at least 1; got 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_said_when_it_is_made(name):
    make, message = WRONG[name]
    with pytest.raises(PlanError, match=message):
        make()


def test_a_part_with_the_name_of_ours_is_refused():
    @dataclasses.dataclass(frozen=True)
    class Collect(Phase):
        pass

    with pytest.raises(PlanError, match=r"Collect is defined twice, .* give it another name"):
        plan(Start(), Collect())


def test_evolving_plans_still_are_what_they_were():
    assert edst().to_json()["phases"][0] == {"kind": "Start", "sparsity": 0.5}
