"""What a plan is made of, and how it is written as JSON: frozen dataclasses, known by their names.

A part is a subclass of `Part` or of `jaxtickets.schedules.Schedule`. It is known by being defined,
so that a phase, a schedule or an optimizer of a user's own goes to JSON and back as ours do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

from jaxtickets.errors import PlanError
from jaxtickets.masks.structure import Structure
from jaxtickets.schedules import Schedule

OURS = "jaxtickets."


class Part:
    """Something that a plan is made of: a frozen dataclass whose fields are numbers, texts, parts
    and tuples of these.
    """

    shown: ClassVar[tuple[str, ...]] = ()
    """Fields that `describe` shows at their defaults too."""

    # Every part is one, so that `dataclasses.replace` takes it; a class that is none is refused.
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


def kinds() -> dict[str, type]:
    """Every kind of part that is defined, by name; of two of one name ours, or the later."""
    found: dict[str, type] = {}
    for kind in (one for base in (Part, Schedule, Structure) for one in _subclasses(base)):
        if dataclasses.is_dataclass(kind) and not _is_ours(found.get(kind.__name__)):
            found[kind.__name__] = kind
    return found


def _subclasses(base: type) -> Iterator[type]:
    for kind in base.__subclasses__():
        yield kind
        yield from _subclasses(kind)


def _is_ours(kind: type | None) -> bool:
    return kind is not None and kind.__module__.startswith(OURS)


def check_kind(kind: type) -> None:
    """Raise `PlanError` where the class of a part has the name of ours, or is no dataclass."""
    if not dataclasses.is_dataclass(kind):
        fix = "write @dataclasses.dataclass(frozen=True) above it"
        raise PlanError(f"{kind.__name__} is no dataclass; {fix}.")
    known = kinds()[kind.__name__]
    if known is not kind and not _is_ours(kind):
        fix = "give it another name" if _is_ours(known) else "make the plan of the later one"
        raise PlanError(
            f"{kind.__name__} is defined twice, in {kind.__module__} and in {known.__module__}, and"
            f" JSON knows parts of plans by their names; {fix}."
        )


def default_of(field: dataclasses.Field[Any]) -> Any:
    """What the field is if nothing is said; `dataclasses.MISSING` if something must be."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def to_json(value: Any) -> Any:
    """A part as dicts, lists, texts and numbers."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # Defaults are left out, so that a plan written before a field was there is read as the plan
        # that it was.
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        defaults = {field.name: default_of(field) for field in dataclasses.fields(value)}
        changed = {name: field for name, field in fields.items() if field != defaults[name]}
        return {"kind": type(value).__name__} | {name: to_json(f) for name, f in changed.items()}
    return [to_json(item) for item in value] if isinstance(value, tuple) else value


def from_json(data: Any) -> Any:
    """The part that `to_json` wrote; it checks itself when it is made.

    Raises:
      PlanError: no part, or of a kind that is not defined.
    """
    return _from_json(data, kinds())


def _from_json(data: Any, defined: dict[str, type]) -> Any:
    if isinstance(data, list):
        return tuple(_from_json(item, defined) for item in data)
    if not isinstance(data, dict):
        return data
    name = data.get("kind")
    kind = defined.get(str(name or ""))
    fields = {name: _from_json(item, defined) for name, item in data.items() if name != "kind"}
    known = {f.name: default_of(f) for f in dataclasses.fields(kind)} if kind else {}
    needed = {name for name, default in known.items() if default is dataclasses.MISSING}
    if kind is None or not needed <= fields.keys() <= known.keys():
        hint = "" if kind else " If it is one of yours, import the module that defines it first."
        raise PlanError(f"not a part of a plan: {name!r} with fields {sorted(fields)}.{hint}")
    return kind(**fields)


def describe(part: Any) -> str:
    """A part in one line: what differs from the defaults, and what its class has in `shown`.

    >>> from jaxtickets.plan import Evolve, Length, Train
    >>> from jaxtickets.schedules import Constant
    >>> describe(Train(Length(3), Constant(0.01), evolve=Evolve(drop_fraction=0.3)))
    'Train(3 epochs, lr=0.01, evolve=Evolve(update_every=1000, drop_fraction=0.3))'
    """
    if hasattr(part, "described"):
        return part.described()
    words = []
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if field.name == "length":
            words.append(str(value))
        elif isinstance(value, Schedule):
            words.append(f"{field.name}={value}")
        elif value != default_of(field) or field.name in getattr(part, "shown", ()):
            is_part = dataclasses.is_dataclass(value)
            words.append(f"{field.name}={describe(value) if is_part else f'{value!r}'}")
    return f"{type(part).__name__}({', '.join(words)})"


def short_name(part: Any) -> str:
    """A part in a few words, for a line of progress and a row of a table."""
    return part.short_name() if hasattr(part, "short_name") else describe(part)
