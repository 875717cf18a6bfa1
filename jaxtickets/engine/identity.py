"""What makes a run this run: its plan, data and key, and what its functions compute."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import platform
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import masks
from jaxtickets.dataset import Dataset, Stream
from jaxtickets.engine.checkpoints import digest
from jaxtickets.engine.digests import digest_of
from jaxtickets.engine.mask_rules import compiled_for, mask_rule
from jaxtickets.engine.optimizer import build_optimizer
from jaxtickets.engine.phase_steps import run_phase
from jaxtickets.engine.state import Network
from jaxtickets.engine.traces import Traced
from jaxtickets.errors import MaskError
from jaxtickets.masks import scores
from jaxtickets.plan import Plan
from jaxtickets.task import Task

PyTree = Any

# What each digest is of, for people; and where its function's name is kept.
_PARTS = {
    "init": "task.init, which draws the first weights,",
    "train": "task.apply, the network in training,",
    "evaluation": "task.apply, the network in evaluation,",
    "loss": "task.loss",
    "log_proba": "task.log_proba",
    "augment": "data.augment",
    "prepare": "data.prepare",
    "stream": "the code of the stream",
    "buckets": "data.buckets",
    "plan": "what parts and scores of the plan do that are not this library's,",
    "prunable": "task.prunable, or what it lets a mask cover,",
}
_NAMES = {
    "loss": ("task", "loss"),
    "augment": ("data", "augment"),
    "prepare": ("data", "prepare"),
    "prunable": ("task", "prunable"),
}


def identity_of(
    plan: Plan,
    task: Task,
    data: Dataset | Stream,
    key: int | jax.Array,
    traced: Traced,
    given: Network | None,
) -> dict[str, Any]:
    """What makes a run this run and no other, as JSON.

    "computes" has a digest of everything that is computed (see `jaxtickets.engine.digests`), and
    "with": the versions and the backend that a program depends on. Names are for people.
    """
    leaves = zip(masks.leaf_paths(traced.params), jax.tree.leaves(traced.params), strict=True)
    shapes = {path: f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}
    about = {"name": data.name, "examples": len(data), "fingerprint": data.fingerprint()}
    if isinstance(data, Dataset):
        about |= {"augment": _name(data.augment), "prepare": _name(data.prepare)}
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.key_data(key)
    return {
        "plan": plan.to_json(),
        "task": {
            "name": task.name,
            "params": shapes,
            "loss": _name(task.loss),
            "prunable": [[p, _name(v)] for p, v in task.prunable],
        },
        "data": about,
        "key": np.asarray(key).tolist(),
        "computes": _computes(task, data, traced, given) | _plan_code(plan) | {"with": _with()},
    } | ({} if given is None else {"start_from": f"{digest(given):08x}"})


def _computes(
    task: Task, data: Dataset | Stream, traced: Traced, given: Network | None
) -> dict[str, str]:
    """Digests of all that is computed, by name."""
    found = {name: digest_of(program) for name, program in traced.programs.items()}
    if given is not None:
        del found["init"]  # is not asked
    if isinstance(data, Dataset):
        if data.augment is not None and "augment" not in found:
            found["augment"] = digest_of(data.augment)
        if data.buckets:
            found["buckets"] = digest_of(data.buckets)
    else:
        found["stream"] = digest_of(_stream_code(data))
    with contextlib.suppress(MaskError):  # nothing is prunable, and nothing is pruned
        found["prunable"] = digest_of(jax.tree.leaves(masks.prunable(traced.params, task.prunable)))
    return found


def _plan_code(plan: Plan) -> dict[str, str]:
    """A digest of what a plan does that is the user's own: parts and scores."""
    code: list[Any] = []

    def walk(part: Any) -> None:
        if isinstance(part, tuple):
            for item in part:
                walk(item)
        elif isinstance(part, str) and part in scores.names():
            function = scores.get(part).function
            code.extend([] if _is_ours(function) else [part, function])
        elif dataclasses.is_dataclass(part):
            kind = type(part)
            if not _is_ours(kind):
                does = (run_phase, mask_rule, compiled_for, build_optimizer)
                methods = {name: one for name, one in vars(kind).items() if callable(one)}
                code.extend([kind.__name__, methods, *(one.dispatch(kind) for one in does)])
            for field in dataclasses.fields(part):
                walk(getattr(part, field.name))

    walk(plan)
    return {"plan": digest_of(code)} if code else {}


def _is_ours(value: Any) -> bool:
    return value.__module__.startswith("jaxtickets.")


def _stream_code(stream: Any) -> list[Any]:
    """How a stream makes its batches, besides its data, which `fingerprint` is of: the code of its
    class, and functions that it keeps.
    """
    code = (
        []
        if type(stream).__module__.startswith("jaxtickets.")
        else [vars(kind).get("batches") for kind in type(stream).__mro__]
    )
    fields = getattr(stream, "__dict__", {})
    kept = {
        name: value
        for name, value in sorted(fields.items())
        if callable(value) and not isinstance(value, type)
    }
    return [*code, kept]


def _with() -> dict[str, str]:
    """What a traced program depends on besides the code that was traced."""
    packages = {name: importlib.metadata.version(name) for name in ("jax", "flax")}
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        **packages,
        "backend": jax.default_backend(),
    }


def differences(
    found: dict[str, Any], wanted: dict[str, Any], at: tuple[str, str] = ("there", "here")
) -> tuple[list[str], str]:
    """What two runs differ in, in plain words.

    Args:
      found: an identity, as JSON; of an older version it may lack what is computed.
      wanted: this run's, as JSON.
      at: where the one and the other are, in words.

    Returns:
      The differences. And what cannot be told, in one sentence: where versions or the backend are
        others, programs may differ though the
      functions are the same; empty where all can be told.
    """
    there, here = (
        {name: part for name, part in run.items() if name != "computes"} for run in (found, wanted)
    )
    before, now = (dict(run.get("computes") or {}) for run in (found, wanted))
    if before and now:
        with_before, with_now = before.pop("with", {}), now.pop("with", {})
        other = [name for name in _PARTS if before.get(name) != now.get(name)]
        there, here = _without_names(there), _without_names(here)
        told = list(_unequal(there, here, at))
        if not other:
            return told, ""
        words = _others(other, found, wanted, at)
        if with_before == with_now:
            return told + words, ""
        changed = [
            f"{n} {with_before.get(n, '?')} {at[0]} and {v} {at[1]}"
            for n, v in with_now.items()
            if with_before.get(n) != v
        ]
        return (
            told,
            (
                f"with {', '.join(changed)} it cannot be told whether these are the same functions:"
                f" {_listed(other)}"
            ),
        )
    return list(_unequal(there, here, at)), ""


def _others(
    parts: list[str], found: dict[str, Any], wanted: dict[str, Any], at: tuple[str, str]
) -> list[str]:
    """For every part that is another one: a sentence."""
    words = []
    for name in parts:
        if name == "evaluation" and "train" in parts:
            continue
        what = (
            "task.apply, the network,"
            if name == "train" and "evaluation" in parts
            else _PARTS[name]
        )
        kind = {"buckets": "others", "stream": "another"}.get(name, "another function")
        named = _NAMES.get(name, ())
        there, here = (_at(run, named) for run in (found, wanted))
        if there != here:
            words += _unequal(there, here, at, ".".join(named))
        else:
            words.append(
                f"{what} was {kind}".replace(", was", " was" if what.count(",") == 1 else ", was")
            )
    return words


def _listed(parts: list[str]) -> str:
    return ", ".join(
        _PARTS[name].split(",")[0] for name in parts if name != "evaluation" or "train" not in parts
    )


def _without_names(run: dict[str, Any]) -> dict[str, Any]:
    """An identity without the names of functions, whose digests say more."""
    hidden = {
        group: {name for where, name in _NAMES.values() if where == group}
        for group in ("task", "data")
    }
    return run | {
        group: {name: v for name, v in run.get(group, {}).items() if name not in hidden[group]}
        for group in hidden
    }


def _at(run: dict[str, Any], path: tuple[str, ...]) -> Any:
    for name in path:
        run = run.get(name, {})
    return run if path else None


def _unequal(found: Any, wanted: Any, at: tuple[str, str], where: str = "") -> Any:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for name in sorted(found.keys() | wanted.keys()):
            yield from _unequal(
                found.get(name, "nothing"),
                wanted.get(name, "nothing"),
                at,
                f"{where}.{name}" if where else name,
            )
    elif isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
            yield from _unequal(a, b, at, f"{where}[{i}]")
    elif found != wanted:
        yield f"{where} was {_short(found)} {at[0]} and is {_short(wanted)} {at[1]}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _name(part: Any) -> Any:
    """What a function is called: its fields, or its name; for people, and the same in every
    process.
    """
    if part is None or isinstance(part, bool):
        return part
    if isinstance(part, functools.partial):
        named = (f"{name}={_word(value)}" for name, value in part.keywords.items())
        return f"{_name(part.func)}({', '.join([*map(_word, part.args), *named])})"
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        fields = ", ".join(
            f"{field.name}={_word(getattr(part, field.name))}"
            for field in dataclasses.fields(part)
            if field.repr
        )
        return f"{type(part).__qualname__}({fields})"
    return getattr(part, "__qualname__", type(part).__qualname__)


def _word(value: Any) -> str:
    plain = value is None or isinstance(value, bool | int | float | str | bytes | tuple | frozenset)
    named = isinstance(
        value,
        types.FunctionType
        | types.MethodType
        | types.BuiltinFunctionType
        | functools.partial
        | type,
    )
    return (
        repr(value)
        if plain
        else str(_name(value))
        if named or dataclasses.is_dataclass(value)
        else type(value).__name__
    )
