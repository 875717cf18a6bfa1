"""The programs of a task and its data: traced once, before anything is compiled, for the checks and
for what makes a run this run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxtickets.dataset import Dataset, Stream
from jaxtickets.engine.digests import same_program
from jaxtickets.errors import DataError, TaskError
from jaxtickets.messages.pytrees import leaf_paths
from jaxtickets.task import Task

PyTree = Any


@dataclasses.dataclass(frozen=True, eq=False)
class Traced:
    """What is known of a task once it is traced.

    Args:
      params: shapes.
      model_state: shapes.
      x: shapes of a batch as the network takes it.
      programs: jaxprs by name: "init", "train", "evaluation", "loss", "log_proba"; of a `Dataset`
        "prepare" and, where there is one that can be traced with so few examples, "augment".
    """

    params: PyTree
    model_state: PyTree
    x: PyTree
    programs: dict[str, Any]

    @property
    def x_spec(self) -> PyTree:
        """What the network takes per example."""
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), self.x)


def trace(task: Task, data: Dataset | Stream, example: PyTree) -> Traced:
    """Traces everything on an example; nothing is compiled or computed.

    Raises:
      DataError: the network cannot take these examples, or its outputs and loss are not of the
        shapes `Task` says.
      TaskError: training does not reach the network.
    """
    key = jax.eval_shape(lambda: jax.random.key(0, impl="threefry2x32"))
    batch = jax.tree.leaves(example)[0].shape[0]
    y = jax.ShapeDtypeStruct((batch,), np.float32 if task.num_classes is None else np.int32)
    programs: dict[str, Any] = {}

    def run(name: str, function: Callable[..., Any], *args: Any) -> Any:
        programs[name], shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        return shapes

    # float64 is float32 to JAX
    doing, x = (
        f"prepare of {data.name} cannot take its examples",
        jax.eval_shape(lambda x: x, example),
    )
    try:
        if isinstance(data, Dataset):
            x = run("prepare", data.prepare, example)
        doing = f"{task.name} cannot take the examples of {data.name}"
        params, state = run("init", task.init, key, x)
        outputs, after = run(
            "train", lambda p, s, x, key: task.apply(p, s, x, True, key), params, state, x, key
        )
        loss = run("loss", task.loss, outputs, y)
        log_proba = run("log_proba", task.log_proba, outputs)
        doing = f"{task.name} cannot evaluate the examples of {data.name}"
        predicted, _ = run(
            "evaluation",
            lambda p, s, x, key: task.apply(p, s, x, False, None),
            params,
            state,
            x,
            key,
        )
        evaluated = jax.eval_shape(task.log_proba, predicted)
    except Exception as error:  # every framework has its own kinds; each means the same here
        got = ", ".join(f"{leaf.dtype}{list(leaf.shape[1:])}" for leaf in jax.tree.leaves(x))
        raise DataError(f"{doing}, {got} each: {error}") from error
    if isinstance(data, Dataset) and data.augment is not None:
        try:
            run("augment", data.augment, key, example)
        # Perhaps it wants more examples; it is known by its code, and training traces it again.
        except Exception:
            programs.pop("augment", None)
    wanted = (batch,) if task.num_classes is None else (batch, task.num_classes)
    wanted = wanted if task.heads == 1 else (task.heads, *wanted)
    if loss.shape != (batch,):
        raise DataError(
            f"the loss of {task.name} has the shape {list(loss.shape)} for {batch} examples; one"
            f" number each is [{batch}]."
        )
    for shape, where in ((log_proba.shape, ""), (evaluated.shape, " in evaluation")):
        if shape != wanted:
            of = (
                f"{batch} examples"
                if task.heads == 1
                else f"{task.heads} heads and {batch} examples"
            )
            raise DataError(
                f"log_proba of {task.name} has the shape {list(shape)} for {of}{where}; it must be"
                f" {list(wanted)}."
            )
    _check_pairs(task, outputs, y)
    _check_state(task, state, after)
    found = Traced(params, state, x, programs)
    _check_training(task, found)
    return found


def _check_pairs(task: Task, outputs: PyTree, y: jax.ShapeDtypeStruct) -> None:
    """Raise `DataError` where the loss sets every output against every label: with another number
    of labels that is no error to it.
    """
    more = jax.ShapeDtypeStruct((y.shape[0] + 1,), y.dtype)
    if not y.shape[0]:  # a stream that breaks its promise, which is told when it is read
        return
    try:
        closed = jax.make_jaxpr(task.loss)(outputs, more)
    except Exception:  # as it should be: labels and outputs do not fit
        return
    used = any(v is closed.jaxpr.invars[-1] for eqn in closed.jaxpr.eqns for v in eqn.invars)
    if used and closed.out_avals[0].shape == y.shape:
        given = ", ".join(str(list(leaf.shape)) for leaf in jax.tree.leaves(outputs))
        raise DataError(
            f"the loss of {task.name} sets the outputs of an example, {given} for {y.shape[0]}"
            " examples, against the labels of all the others: its mean is that of a table, not of"
            " pairs. Give both one shape, such as outputs[:, 0] and y."
        )


def _check_state(task: Task, before: PyTree, after: PyTree) -> None:
    """Raise `TaskError` unless training gives a state like the one that it was given."""
    same = jax.tree.structure(before) == jax.tree.structure(after)
    if not same or any(
        (a.shape, a.dtype) != (b.shape, b.dtype)
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after))
    ):
        told = [
            jax.tree.map(lambda a: f"{a.dtype}{list(a.shape)}", state) for state in (before, after)
        ]
        raise TaskError(
            f"{task.name} makes another kind of model_state in training: of {told[0]} it makes"
            f" {told[1]}. Both must be alike."
        )


def _read_state(found: Traced) -> list[str]:
    """Leaves of the state that predictions depend on, by path."""
    closed, states = found.programs["evaluation"], len(jax.tree.leaves(found.model_state))
    results = closed.jaxpr.outvars[: len(closed.jaxpr.outvars) - states]
    wanted = {id(v) for v in results}
    for eqn in reversed(closed.jaxpr.eqns):
        if any(id(v) in wanted for v in eqn.outvars):
            wanted |= {id(v) for v in eqn.invars}
    first = len(jax.tree.leaves(found.params))
    inputs = closed.jaxpr.invars[first : first + states]
    return [
        path
        for path, v in zip(leaf_paths(found.model_state), inputs, strict=True)
        if id(v) in wanted
    ]


def _check_training(task: Task, found: Traced) -> None:
    """Raise `TaskError` where there is state or dropout, and training is the same program as
    evaluation.
    """
    train, evaluation = found.programs["train"], found.programs["evaluation"]
    same = same_program(train, evaluation)
    look = getattr(task.apply, "off_in_training", None)
    if look is not None:
        off = look(found.params, found.model_state, found.x, same, task.fixed_state)
    else:
        read = _read_state(found) if same and not task.fixed_state else []
        off = (
            f"it reads {', '.join(read[:3])} of its model_state, which never changes"
            if read
            else ""
        )
    if not off:
        return
    what = (
        "training and evaluation of it are the same program"
        if same
        else "training leaves off what it has"
    )
    raise TaskError(
        f"{task.name}: {what}, though {off}: whether it trains does not reach the network. Let it"
        " take train (or training, deterministic, use_running_average, ...) where it is called,"
        " and hand that on to every BatchNorm and Dropout; a function apply(params, model_state,"
        " x, train, key) is told by train. If its state is meant to stay as it is, say"
        " fixed_state=True."
    )
