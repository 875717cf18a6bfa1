"""Which leaves a mask may cover: rules on their paths, and what the default rules know."""

from __future__ import annotations

import functools
import inspect
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxtickets.errors import MaskError
from jaxtickets.masks import kernels
from jaxtickets.masks.kernels import is_kernel
from jaxtickets.messages.pytrees import some
from jaxtickets.messages.quoting import shown

PyTree = Any
Rules = Sequence[tuple[str, bool | Callable[..., bool]]]

# Convolution, dense and recurrent kernels by the names that frameworks give them; never biases,
# norms or embedding tables (see `jaxtickets.masks.kernels`).
KERNELS: Rules = ((kernels.NAMES, is_kernel), (r".*", False))


def prunable(params: PyTree, rules: Rules = KERNELS) -> PyTree:
    """For every leaf of `params`: may it be masked?

    The default rules know the kernels of Linen, NNX, Equinox, Haiku, PyTorch and plain dicts by
    name, and leave norms, biases and embeddings dense. Where they cover less than half of the
    weights that have two axes or more (norms, biases and embeddings aside) a warning names the
    others.

    Args:
      params: a tree of arrays (or of anything with a `shape`).
      rules: ordered pairs `(pattern, verdict)`. `pattern` is searched in the leaf's path; the first
        match wins. `verdict` is True, False, or a predicate: on the leaf, or on the leaf and its
        `jaxtickets.masks.kernels.NamedLeaf`, which says what holds it and what is beside it.

    Returns:
      A tree of bools with the structure of `params`.

    Raises:
      MaskError: rules that are none; a leaf that no rule covers; a rule with verdict True that
        matches no leaf; nothing prunable at all.

    >>> prunable({"Dense_0": {"kernel": np.ones((2, 3)), "bias": np.ones(3)}})
    {'Dense_0': {'bias': False, 'kernel': True}}
    >>> prunable({"A": np.ones((2, 3)), "w": np.ones((2, 3))}, [("^A$", True), (".*", False)])
    {'A': True, 'w': False}
    """
    check_rules(rules)
    tree, leaves = jax.tree.structure(params), kernels.named_leaves(params)
    verdicts: list[bool] = []
    uncovered: list[str] = []
    for named in leaves:
        if not hasattr(named.leaf, "shape"):
            raise MaskError(
                f"params are arrays; {named.path!r} is {shown(named.leaf)}. Of an Equinox module"
                " take eqx.filter(model, eqx.is_array)."
            )
        rule = next((verdict for pattern, verdict in rules if re.search(pattern, named.path)), None)
        if rule is None:
            uncovered.append(named.path)
            continue
        verdicts.append(
            len(named.leaf.shape) > 0 and (_judge(rule, named) if callable(rule) else rule)
        )
    paths = [named.path for named in leaves]
    if uncovered:
        raise MaskError(
            f"no rule covers {len(uncovered)} of {len(paths)} leaves: {some(uncovered)}. "
            "End the rules with ('.*', False) to leave the rest dense."
        )
    for pattern, verdict in rules:
        if verdict is True and not any(re.search(pattern, path) for path in paths):
            raise MaskError(
                f"the rule ({pattern!r}, True) matches no leaf. The leaves are {some(paths)}."
            )
    if not any(verdicts):
        raise MaskError(
            f"the rules {[pattern for pattern, _ in rules]} find nothing to prune among"
            f" {some(paths)}. Give rules that do: prunable=[('part of a path', True), ('.*',"
            " False)]."
        )
    if tuple(rules) == KERNELS:
        _warn_of_other_matrices(leaves, verdicts)
    return jax.tree.unflatten(tree, verdicts)


def check_rules(rules: Any) -> None:
    """Raise `MaskError` unless these are rules: pairs (pattern, True, False or a predicate)."""
    shape = (
        "rules are pairs (pattern, True, False or a function of the leaf), such as [('kernel',"
        " True), ('.*', False)]"
    )
    if isinstance(rules, str) or not isinstance(rules, Sequence):
        raise MaskError(f"{shape}; got {rules!r}.")
    for rule in rules:
        if (
            isinstance(rule, str)
            or not isinstance(rule, Sequence)
            or len(rule) != 2
            or not isinstance(rule[0], str)
        ):
            raise MaskError(f"{shape}; got {rule!r} among them.")
        pattern, verdict = rule
        if not (isinstance(verdict, bool) or callable(verdict)):
            raise MaskError(
                f"the verdict of the rule {pattern!r} is True, False or a function of the leaf; got"
                f" {verdict!r}."
            )
        try:
            re.compile(pattern)
        except re.error as error:
            raise MaskError(
                f"the rule's pattern {pattern!r} is no regular expression: {error}. It is searched"
                " in paths like 'a/kernel'."
            ) from None


@functools.lru_cache(maxsize=64)
def _looks_around(verdict: Callable[..., bool]) -> bool:
    try:
        needed = [
            p
            for p in inspect.signature(verdict).parameters.values()
            if p.default is p.empty and p.kind in (0, 1)
        ]
    except ValueError:
        return False
    return len(needed) == 2


def _judge(verdict: Callable[..., bool], named: kernels.NamedLeaf) -> bool:
    return bool(verdict(named.leaf, named) if _looks_around(verdict) else verdict(named.leaf))


def _warn_of_other_matrices(leaves: Sequence[kernels.NamedLeaf], verdicts: Sequence[bool]) -> None:
    def size(named: kernels.NamedLeaf) -> int:
        return int(np.prod(named.leaf.shape, dtype=np.int64))

    others = [
        named
        for named, may in zip(leaves, verdicts, strict=True)
        if not may and kernels.counts_as_matrix(named)
    ]
    covered = sum(size(named) for named, may in zip(leaves, verdicts, strict=True) if may)
    left = sum(map(size, others))
    if left > covered:
        names = "|".join(dict.fromkeys(re.escape(named.name) for named in others[:8]))
        warnings.warn(
            f"the default rules cover {covered / (covered + left):.0%} of {covered + left:,}"
            f" weights in matrices; these stay dense: {some([named.path for named in others])}. If"
            f" they are kernels, say so: prunable=[(r'(^|/)({names})$', True),"
            f" *jaxtickets.masks.KERNELS]. If not, give prunable=[(r'(^|/)({names})$', False),"
            " *jaxtickets.masks.KERNELS].",
            stacklevel=1,  # here, so that it is said once however many functions ask
        )
