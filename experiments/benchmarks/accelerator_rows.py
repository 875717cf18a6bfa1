"""What `accelerator.py` measures: every row is a function of its sizes that returns numbers."""

from __future__ import annotations

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from benchmarks import selecting, smaller, texts
from benchmarks.timing import Stepper, take_turns

import jaxtickets as jt
from jaxtickets import engine, members
from jaxtickets.engine import checks
from jaxtickets.engine.device_memory import DoesNotFit
from jaxtickets.engine.host_rows import make_feed
from jaxtickets.engine.network_units import UnitsOf
from jaxtickets.engine.programs import Programs
from jaxtickets.engine.run import Run, RunOfLayout, groups_of
from jaxtickets.engine.state import Weights
from jaxtickets.engine.trial import try_layout
from jaxtickets.masks import sparsity
from jaxtickets.members import Layout
from jaxtickets.models import TransformerConfig
from jaxtickets.plan import SGD, Adam, Length, Optimizer
from jaxtickets.tracing.flops import forward_flops
from jaxtickets.transforms import keep_masked, prune_grow

Row = Callable[[], dict[str, Any]]
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
FOREVER = Length(10**6, "steps")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Args:
      networks: the images' networks by name, each with its optimizer.
      text: the text network.
      tokens: of its examples.
      batch: examples of a step of one member; of texts a quarter.
      members: how many are trained together.
      steps: training steps in one call where several are scanned.
      product: rows and columns of the matrices whose product is the peak.
      weights: of the leaf whose mask is selected.
      seconds: that a row is measured for.
      dtypes: of computation, the more wanted first.
      edst: network, and epochs of exploring and refining, of the run from checkpoints.
    """

    networks: dict[str, tuple[Callable[..., Any], Optimizer]]
    text: TransformerConfig
    tokens: int
    batch: int
    members: tuple[int, ...]
    steps: int
    product: int
    weights: int
    seconds: float
    dtypes: tuple[str, ...]
    edst: tuple[Callable[..., Any], float | Length, float | Length]


WRN = functools.partial(jt.models.WideResNet, num_classes=10)
LENET = functools.partial(jt.models.LeNet, num_classes=10)
FULL = Sizes(
    networks={
        "WRN-28-10": (functools.partial(WRN, 28, 10), SGD()),
        "WRN-16-4": (functools.partial(WRN, 16, 4), SGD()),
        "LeNet-L": (functools.partial(LENET, "L"), Adam()),
    },
    text=texts.SMALL,
    tokens=128,
    batch=128,
    members=(3, 8),
    steps=16,
    product=8192,
    weights=3_686_400,
    seconds=2.0,
    dtypes=("bfloat16", "float32"),
    edst=(functools.partial(WRN, 28, 10), 150, 100),
)
TINY = Sizes(
    networks={"LeNet-S": (functools.partial(LENET, "S"), Adam())},
    text=TransformerConfig(vocabulary=50, layers=1, width=16, heads=2, intermediate=32),
    tokens=8,
    batch=8,
    members=(2,),
    steps=1,
    product=128,
    weights=10_000,
    seconds=0.05,
    dtypes=("bfloat16",),
    edst=(functools.partial(LENET, "S"), Length(6, "steps"), Length(3, "steps")),
)


def rows(sizes: Sizes, data: jt.Dataset) -> dict[str, Row]:
    """All rows but EDST by name, those most wanted first."""
    found: dict[str, Row] = {}
    for dtype in sizes.dtypes:
        found[f"peak, {dtype}"] = functools.partial(matrix_peak, sizes, dtype)
    for dtype in sizes.dtypes:
        for width, across, steps in _layouts(sizes):
            for name in (*sizes.networks, "BERT"):
                key = f"layout, {name}, {dtype}, {width} {across}, {steps} a call"
                layout = Layout(width, across, steps)
                found[key] = functools.partial(layout_row, sizes, data, name, dtype, layout)
    for name in sizes.networks:
        found[f"masked / plain, {name}"] = functools.partial(masked_row, sizes, data, name)
        found[f"shrunk / masked, {name}"] = functools.partial(shrunk_row, sizes, data, name)
    found["selection / top_k"] = functools.partial(selecting.seconds, sizes.weights, 7)
    return found


def _layouts(sizes: Sizes) -> list[tuple[int, members.Across, int]]:
    """Members, how they share a step, steps a call. One member is what "one by one" takes."""
    found: list[tuple[int, members.Across, int]] = []
    order: tuple[members.Across, ...] = ("map", "vmap", "unroll")  # the last compiles longest
    for width in (1, *sizes.members):
        for across in order if width > 1 else order[-1:]:
            found.append((width, across, 1))
            if sizes.steps > 1 and (across != "unroll" or width == 1):
                found.append((width, across, sizes.steps))
    return found


def matrix_peak(sizes: Sizes, dtype: str) -> dict[str, Any]:
    """The device's rate of one large matrix product of random numbers, in TFLOP/s."""
    n = sizes.product
    a, b = (
        jax.random.normal(jax.random.key(i), (n, n), jnp.float32).astype(DTYPES[dtype])
        for i in range(2)
    )
    multiply = jax.jit(jnp.matmul)
    jax.block_until_ready(multiply(a, b))
    rates: list[float] = []
    for _ in range(5):
        began, calls = time.perf_counter(), 0
        while time.perf_counter() - began < sizes.seconds / 5:
            out = [multiply(a, b) for _ in range(4)]
            jax.block_until_ready(out)
            calls += len(out)
        rates.append(2 * n**3 * calls / (time.perf_counter() - began) / 1e12)
    return {"tflops": statistics.median(rates), "n": n}


def network(sizes: Sizes, name: str, dtype: str) -> tuple[jt.Task, Optimizer]:
    """A network as a task, and its optimizer."""
    if name == "BERT":
        model = jt.models.TextClassifier(sizes.text, dtype=DTYPES[dtype])
        return jt.classification(model, prunable=jt.models.ENCODER_KERNELS), Adam()
    make, optimizer = sizes.networks[name]
    return jt.classification(make(dtype=DTYPES[dtype])), optimizer


def layout_row(
    sizes: Sizes, data: jt.Dataset, name: str, dtype: str, layout: Layout
) -> dict[str, Any]:
    """Training steps of sparse members as `fit` takes them, masks between two updates."""
    task, optimizer = network(sizes, name, dtype)
    batch = sizes.batch
    if name == "BERT":
        batch = max(1, sizes.batch // 4)
        x, y = texts.token_batch(sizes.text, 64 * batch, sizes.tokens)
        data = jt.Dataset(x, y, 2, name="random tokens")
    plan = jt.static_sparse(layout.group, 0.8, FOREVER, optimizer=optimizer, batch_size=batch)
    try:
        trial = try_layout(run_of(plan, task, data), (layout, False), None, sizes.seconds)
    except DoesNotFit:
        return {"fits": False}
    assert trial.seconds is not None
    one = jax.tree.map(lambda a: jnp.asarray(a[:1]), data.x)
    params, state = jax.eval_shape(task.init, jax.random.key(0), one)
    flops = forward_flops(
        lambda p, x: task.apply(p, state_of(state), data.prepare(x), False, None)[0],
        params,
        one,
        batch=1,
    )
    # Backward twice forward; dense, as the zeros are multiplied too.
    return {
        "fits": True,
        "milliseconds_of_a_members_step": 1000 * trial.seconds,
        "examples_per_second": batch / trial.seconds,
        "tflops": 3 * flops.total * batch / trial.seconds / 1e12,
        "bytes": trial.bytes,
        "seconds_until_the_first_call_was_done": trial.beginning,
    }


def state_of(shapes: Any) -> Any:
    """Zeros of those shapes, for what is traced only."""
    return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)


def run_of(plan: jt.Plan, task: jt.Task, data: jt.Dataset) -> RunOfLayout:
    """The run of a plan by its layout, as `fit` makes it."""
    example = checks.example_of(data)
    traced = checks.check_model(plan, task, data, example)
    run = functools.partial(
        Run,
        plan=plan,
        task=task,
        held=None,
        example=data.prepare(example),
        given=None,
        begins=Weights(traced.params, traced.model_state),
        units_of=UnitsOf(task, traced.x_spec),
        x_spec=traced.x_spec,
        programs=Programs(),
        probe=None,
        masks_before=lambda lineage: [],
    )
    keys = members.member_keys(0, plan.width)
    feed = functools.partial(make_feed, data, plan.batch_size)
    return RunOfLayout(run, feed, functools.partial(groups_of, plan, keys=keys))


def _batch(sizes: Sizes, data: jt.Dataset) -> tuple[jax.Array, jax.Array]:
    return jnp.asarray(data.prepare(data.x[: sizes.batch])), jnp.asarray(data.y[: sizes.batch])


def _transform(sizes: Sizes, name: str) -> optax.GradientTransformation:
    adam = isinstance(sizes.networks[name][1], Adam)
    decayed = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.1, momentum=0.9))
    return optax.adam(1e-3) if adam else decayed


def masked_row(sizes: Sizes, data: jt.Dataset, name: str, rounds: int = 7) -> dict[str, Any]:
    """A plain step against the same with `keep_masked`, and with `prune_grow`, in a user's loop."""
    task, _ = network(sizes, name, "float32")
    batch, tx, key = _batch(sizes, data), _transform(sizes, name), jax.random.key(0)
    params, _ = jax.eval_shape(task.init, key, batch[0][:1])
    mask = sparsity.random_mask(key, params, 0.8)
    growing = Stepper(task, prune_grow(tx, mask=mask, update_every=100, key=key), batch)
    calls = {
        "plain": Stepper(task, tx, batch),
        "keep_masked": Stepper(task, keep_masked(tx, mask), batch),
        "prune_grow, no update": growing.at(0),
        "prune_grow, update": growing.at(99),
    }
    return {"seconds": take_turns(calls, rounds)}


def shrunk_row(sizes: Sizes, data: jt.Dataset, name: str, rounds: int = 7) -> dict[str, Any]:
    """A step with half the channels cut out against the masked one."""
    task, _ = network(sizes, name, "float32")
    calls = smaller.steppers(task, _transform(sizes, name), _batch(sizes, data))
    return {"seconds": take_turns(dict(calls), rounds)}


def edst_plan(sizes: Sizes, shorter: float) -> jt.Plan:
    """The paper's schedule, its lengths divided by `shorter`, mask updates likewise."""
    _, explore, refine = sizes.edst
    if not isinstance(explore, Length) and not isinstance(refine, Length):
        explore, refine = explore / shorter, refine / shorter
    every = max(1, round(1000 / shorter))
    return jt.edst(3, 0.8, explore, refine, update_every=every, batch_size=sizes.batch)


def edst(
    sizes: Sizes, data: tuple[jt.Dataset, jt.Dataset | None], shorter: float, folder: Path
) -> dict[str, Any]:
    """Train EDST in bfloat16 from the newest checkpoint of `folder` to the end, and evaluate it."""
    train, test = data
    task = jt.classification(sizes.edst[0](dtype=jnp.bfloat16))
    plan = edst_plan(sizes, shorter)
    tickets = jt.fit(plan, task, train, key=0, out=folder, checkpoint_every=30)
    found = edst_so_far(sizes, train, shorter, folder)
    if test is not None:
        x, y = np.asarray(test.prepare(test.x)), np.asarray(test.y)
        each = np.asarray(tickets.member_log_proba(x))
        found["member_accuracies"] = [float(np.mean(one.argmax(-1) == y)) for one in each]
        whole = np.exp(each).mean(0).argmax(-1)
        found["ensemble_accuracy"] = float(np.mean(whole == y))
    return found


def edst_so_far(sizes: Sizes, data: jt.Dataset, shorter: float, folder: Path) -> dict[str, Any]:
    """How far that run has come by its own records, and how fast it is."""
    plan = edst_plan(sizes, shorter)
    of = plan.all_steps(len(data) // plan.batch_size)
    try:
        records = engine.read_metrics(folder)
    except (OSError, jt.RunError):
        records = []
    rates = [record["examples_per_second"] / plan.batch_size for record in records]
    return {
        "steps": records[-1]["step"] if records else 0,
        "of": of,
        "steps_per_second": statistics.median(rates) if rates else None,
        "seconds": records[-1]["seconds"] if records else 0.0,
        "shorter": shorter,
        "plan": str(plan),
    }
