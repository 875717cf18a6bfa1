"""Reads what a checkpoint says of its classifier: whether it is of texts, and its classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtickets.errors import CheckpointError
from jaxtickets.messages.quoting import shown

_OTHERS = ("TokenClassification", "MultipleChoice")  # whose tensors have the same names


def check_classifier(settings: Mapping[str, Any], where: str) -> None:
    """Raise `CheckpointError` unless the config's classifier gives a text one class."""
    kind = settings.get("problem_type")
    if kind not in (None, "single_label_classification", "regression"):
        raise CheckpointError(
            f"{where}: problem_type is {shown(kind)}; a classifier gives one class of each text, or"
            " a number. Read it without head=."
        )
    classes = settings.get("architectures")
    for name in classes if isinstance(classes, list) else []:
        if str(name).endswith(_OTHERS):
            raise CheckpointError(
                f"{where}: its head is that of a {name}, which is no classifier of texts. Read it"
                " without head=."
            )


def names_of_classes(settings: Mapping[str, Any], outputs: int, where: str) -> tuple[str, ...]:
    """The names of the classes in the order of the outputs, from `id2label`.

    Empty where it is not there, or says no more than LABEL_0, LABEL_1.

    Raises:
      CheckpointError: one that does not say which class each output is.
    """
    labels = settings.get("id2label")
    if labels is None:
        return ()
    numbers = {str(i) for i in range(outputs)}
    words = isinstance(labels, Mapping) and all(isinstance(name, str) for name in labels.values())
    if not words or {str(i) for i in labels} != numbers:
        raise CheckpointError(
            f"{where}: id2label is {shown(labels)}; a classifier of {outputs} outputs has a name"
            f" for each number from 0 to {outputs - 1}."
        )
    names = tuple(labels[str(i)] if str(i) in labels else labels[i] for i in range(outputs))
    return () if names == tuple(f"LABEL_{i}" for i in range(outputs)) else names


def order_of_classes(names: Sequence[str], wanted: Sequence[str], where: str) -> list[int]:
    """The output that gives each of the wanted classes.

    Capitals, spaces and `_` against `-` make no difference.

    Raises:
      CheckpointError: the classes are others, or are not known.

    >>> theirs = ["CONTRADICTION", "ENTAILMENT", "NEUTRAL"]
    >>> order_of_classes(theirs, ["entailment", "neutral", "contradiction"], "config.json")
    [1, 2, 0]
    """
    place_by_name = {_plain(name): i for i, name in enumerate(names)}
    if (
        len(place_by_name) < len(names)
        or set(place_by_name) != {_plain(name) for name in wanted}
        or len(place_by_name) != len(wanted)
    ):
        problem = (
            f"names its outputs {', '.join(names)[:200]}"
            if names
            else "does not name its outputs (id2label)"
        )
        raise CheckpointError(
            f"{where}: {problem}; class_names are {', '.join(wanted)[:200]}. Leave class_names out"
            " for the order of the file, and compare."
        )
    return [place_by_name[_plain(name)] for name in wanted]


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
