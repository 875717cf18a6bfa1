"""What is found wrong before anything is compiled: data, keys, layout and network, each against the
plan.
"""

from __future__ import annotations

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import masks
from jaxtickets.dataset import Dataset, Stream
from jaxtickets.dataset.types import check_one_axis
from jaxtickets.engine.state import Network
from jaxtickets.engine.traces import Traced, trace
from jaxtickets.errors import DataError, MaskError, PlanError
from jaxtickets.masks import packing
from jaxtickets.masks.counting import exact_floor
from jaxtickets.masks.sparsity import prunable_shapes
from jaxtickets.members import Layout, for_members
from jaxtickets.plan import Before, NetworkShapes, Plan, describe
from jaxtickets.task import Task
from jaxtickets.tracing.index_ranges import check_values

PyTree = Any


def check_data(plan: Plan, task: Task, data: Dataset | Stream) -> None:
    """Raise `DataError` unless the data is there, finite, labelled as it says, and of the task's
    classes.
    """
    if len(data) == 0:
        raise DataError(f"{data.name} is empty: there is nothing to train on.")
    if data.num_classes != task.num_classes:
        raise DataError(
            f"{data.name} has {data.num_classes} classes and {task.name} tells {task.num_classes}"
            " apart; make them equal."
        )
    if task.num_classes is None and any(phase.wants_best for phase in plan.phases):
        raise PlanError(
            f"{plan.name} collects the best by accuracy, and {task.name} is a regression, which has"
            " none; collect the last."
        )
    if not isinstance(data, Dataset):
        if any((phase.trains_on or 1) < 1 for phase in plan.phases):
            raise DataError(
                "a plan with bags needs data in memory; a stream is read as a whole. Leave bag out."
            )
        if plan.validation:
            raise DataError(
                "a plan with a validation split needs data in memory; hold the split out of the"
                " stream yourself."
            )
        return
    for path, leaf in zip(masks.leaf_paths(data.x), jax.tree.leaves(data.x), strict=True):
        where = f"{data.name}: x{'/' if path else ''}{path}"
        if not np.shape(leaf):
            raise DataError(
                f"{where} is a single number; the first axis of every array counts the examples."
            )
        if np.ma.is_masked(leaf):
            raise DataError(
                f"{where} is a masked array, whose hidden values would be trained on; fill them, or"
                " drop those rows."
            )
        if len(leaf) != len(data):
            raise DataError(
                f"{where} has {len(leaf)} examples and y has {len(data)}; row i of both is"
                " example i."
            )
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not np.isfinite(leaf).all():
            raise DataError(
                f"{where} holds NaN or infinite values; remove those rows or fill them."
            )
    if np.ma.is_masked(data.y):
        raise DataError(
            f"{data.name}: y is a masked array, whose hidden values would be learned; drop those"
            " rows."
        )
    if data.y.dtype.kind not in "biuf" and not jnp.issubdtype(data.y.dtype, jnp.floating):
        raise DataError(
            f"{data.name}: y holds {data.y.dtype}; labels are integers, and targets of a regression"
            " are floats."
        )
    if data.num_classes is None:
        if not np.isfinite(data.y).all():
            raise DataError(f"{data.name}: y holds NaN or infinite values; remove those rows.")
    elif (
        not np.issubdtype(data.y.dtype, np.integer)
        or data.y.min() < 0
        or data.y.max() >= data.num_classes
    ):
        raise DataError(
            f"{data.name}: y holds {data.y.dtype} from {data.y.min()} to {data.y.max()}; "
            f"labels of {data.num_classes} classes are integers from 0 to {data.num_classes - 1}."
        )


def check_batch(plan: Plan, examples: int, layout: Layout) -> None:
    """Raise `DataError` unless at least one full batch is there, in every bag too, and divides over
    the mesh's data axis.
    """
    batch_size = plan.batch_size
    for phase in plan.phases:
        bag = phase.trains_on
        if bag is not None and exact_floor(bag, examples) < batch_size <= examples:
            raise DataError(
                f"a bag of {bag:g} of {examples} examples does not fill a batch of"
                f" {batch_size}; take a larger bag."
            )
    if batch_size > examples:
        raise DataError(
            f"batch_size={batch_size} is more than the {examples} training examples; take at most"
            f" {examples}."
        )
    for copies in (plan.width, plan.copies(len(plan.phases))):
        mesh = for_members(layout, min(layout.group, copies)).mesh
        if mesh is not None and batch_size % mesh.shape["data"]:
            raise DataError(
                f"batch_size={batch_size} does not divide over the {mesh.shape['data']} devices of"
                f" the mesh's data axis, where {min(layout.group, copies)} members train together."
            )


def check_key(key: Any, members: int) -> None:
    """Raise `ValueError` unless `key` is an int, a threefry key, or one such key per member, all
    different.
    """
    accepted = (
        f"an int, a JAX key (jax.random.key(0)), or one key for each of the {members} lineages"
    )
    if isinstance(key, bool) or not hasattr(key, "dtype"):
        try:
            seed = operator.index(key)
        except TypeError:
            seed = None
        if seed is None or isinstance(key, bool):
            raise ValueError(f"key is {accepted}; got {key!r}.")
        if not 0 <= seed < 2**32:
            raise ValueError(
                f"key as an int is in [0, 2^32), so that no two give the same draws; got {key}."
            )
        return
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if np.ndim(key) == 0 and np.issubdtype(key.dtype, np.integer):
            return check_key(int(key), members)
        if key.dtype != np.uint32 or key.shape[-1:] != (2,):
            raise ValueError(f"key is {accepted}; got an array {key.dtype}{list(key.shape)}.")
        data, shape = np.asarray(key), key.shape[:-1]
    else:
        if str(jax.random.key_impl(key)) != "threefry2x32":
            raise ValueError(
                f"key is of {jax.random.key_impl(key)}, whose draws for member i depend on the"
                " other members; use jax.random.key(seed, impl='threefry2x32')."
            )
        data, shape = np.asarray(jax.random.key_data(key)), key.shape
    if shape not in ((), (members,)):
        raise ValueError(f"key is {accepted}; got keys of shape {list(shape)}.")
    if shape and len(np.unique(data, axis=0)) < members:
        raise ValueError(
            "key holds the same key twice: those members would be equal. jax.random.split gives"
            " different ones."
        )


def check_layout(plan: Plan, layout: Layout) -> None:
    """Raise `ValueError` unless the plan's lineages, and their children, fill the mesh, and that
    every host of several.
    """
    hosts = {} if layout.mesh is None else {one.process_index for one in layout.mesh.devices.flat}
    if jax.process_count() > 1 and len(hosts) < jax.process_count():
        raise ValueError(
            f"layout: of {jax.process_count()} hosts each would train for itself, or not at all;"
            " leave layout out, or give a mesh over the devices of all: Layout(group,"
            " mesh=jaxtickets.members.member_mesh(group, jax.devices()))."
        )
    for copies, what in ((plan.width, "lineages"), (plan.copies(len(plan.phases)), "children")):
        if layout.mesh is not None and copies > layout.group and copies % layout.group:
            raise ValueError(
                f"layout: {copies} {what} do not divide into groups of {layout.group}, as members"
                " over a mesh must."
            )
    if plan.sequential and layout.group > 1:
        raise ValueError(
            f"layout: {plan.name} trains its lineages one after another, since each needs the"
            f" tickets of those before it; got a group of {layout.group}. Leave layout out, or give"
            " Layout(group=1)."
        )


def example_of(data: Dataset | Stream) -> PyTree:
    """Two examples (one of a stream) as they are stored, on the host."""
    if isinstance(data, Dataset):
        return jax.tree.map(lambda a: np.asarray(a[:2]), data.x)
    first = next(iter(data.batches(0, 0, 1)), None)
    if first is None:
        raise DataError(f"{data.name} has {len(data)} examples but yields no batch of one.")
    check_one_axis(first[1], f"{data.name}, its first batch")
    return jax.tree.map(lambda a: np.asarray(a[:1]), first[0])


def check_model(plan: Plan, task: Task, data: Dataset | Stream, example: PyTree) -> Traced:
    """Trace the network on an example, compiling and computing nothing: wrong shapes, rules and
    budgets are found here.

    Raises:
      DataError: the network cannot take these examples, or its outputs and loss are not of the
        shapes `Task` says.
      TaskError: training does not reach the network.
      MaskError: rules or a sparsity that its layers cannot meet.
      PlanError: a pattern of leaves that matches none.
    """
    _check_tree(example)
    found = trace(task, data, example)
    params = found.params
    if isinstance(data, Dataset):
        check_values(task, data.prepare, params, found.model_state, data.x, f"{data.name}: x")
        if data.augment is not None:  # what it makes of some
            key = jax.random.key(0, impl="threefry2x32")
            some = jax.device_get(data.augment(key, jax.tree.map(lambda a: a[:256], data.x)))
            check_values(
                task, data.prepare, params, found.model_state, some, f"{data.name}: x after augment"
            )
    paths = masks.leaf_paths(params)
    if len(set(paths)) < len(paths):
        raise MaskError(
            f"two leaves of the params of {task.name} have one path: rename one of"
            f" {sorted(p for p in paths if paths.count(p) > 1)}."
        )
    masked = plan.masked_at(len(plan.phases))
    shapes = prunable_shapes(params, task.prunable) if masked else {}
    network = NetworkShapes(task, params, found.model_state, found.x_spec, shapes)
    for number, phase in enumerate(plan.phases, 1):
        try:
            phase.check_network(network)
        except PlanError as error:
            raise PlanError(f"phase {number}, {describe(phase)}: {error}") from None
    return found


def check_given(plan: Plan, given: Network | None) -> None:
    """Raise `PlanError` where a plan would draw a mask over the one that a given ticket has, or
    needs whole layers of a packed one.
    """
    if (
        given is not None
        and plan.start.sparsity
        and any(m.ndim for m in jax.tree.leaves(given.mask))
    ):
        raise PlanError(
            "start_from is a sparse ticket and Start draws a mask of its own; give Start no"
            " sparsity, or the params alone."
        )
    if given is not None and packing.tables_in(given.model_state):
        try:
            plan.check_order(Before(validation=plan.validation, packed=True))
        except PlanError as error:
            raise PlanError(
                f"start_from is a packed ticket; give jaxtickets.unpack(tickets), whose layers are"
                f" whole: {error}"
            ) from None


def _check_tree(x: PyTree) -> None:
    if type(x) in (dict, list, tuple):
        for one in x.values() if isinstance(x, dict) else x:
            _check_tree(one)
    elif not hasattr(x, "shape"):
        raise DataError(
            "x is an array, or dicts, lists and tuples of arrays (a ticket file writes it down);"
            f" got {type(x).__name__}."
        )
