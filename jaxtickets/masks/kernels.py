"""Which leaves are kernels: told from their names, and from what holds them.

A kernel is a matrix or a convolution. Norms and embedding tables may have as many axes and, in
Equinox and PyTorch, the same name ("weight"); what holds them tells them apart: its class, its
name, or a bias of the same shape beside it. No framework is imported for that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

PyTree = Any
Channels = Literal["auto", "first", "last"]

# "kernel" (Linen, NNX, Keras: "recurrent_kernel"), "weight" (Equinox, PyTorch: "weight_ih",
# "in_proj_weight"), and "w" (Haiku: "w_i"; plain dicts: "w1", "W", "Wq", "weights"). No
# "weight_norm" or "weight_g".
NAMES = (
    r"(^|/)(([A-Za-z0-9]+_)*(kernel|weight)s?(_?\d+|_(ih|hh|hr|i|h|o|q|k|v|x)(_l\d+(_reverse)?)?)?"
    r"|[wW]_?([ioqkvhxyrzfgcun]{1,3}|in|out|up|down|gate)?_?\d*)$"
)
# said by frameworks that call an embedding "embedding" and a norm's factor "scale"
_KERNEL = re.compile(r"kernels?(_?\d+)?$")
_FIRST = re.compile(r"weight")  # said by frameworks whose convolutions are (out, in, height, width)
_BIAS = re.compile(r"(^|_)(b|bias|beta|offset)(_?\d+|_[a-z]{1,2})?$", re.IGNORECASE)
_NORM = re.compile(r"norm(alization)?_?\d*d?$|(^|_)(ln|bn|gn)(_?\w)?$", re.IGNORECASE)
_TABLE = re.compile(r"embed|(^|_)(emb|wte|wpe)(_|\d|$)", re.IGNORECASE)
_NO_MATRIX = re.compile(
    r"(^|_)(scale|gamma|pos|position|positional|table|token|tokens)(_|\d|$)", re.IGNORECASE
)
_CLASS = re.compile(r"(Norm|Normalization|Embed|Embedding|Embeddings|Embedder|EmbeddingBag)\d?d?$")


class NamedLeaf(NamedTuple):
    """A leaf, its path, what holds it and what stands beside it.

    Args:
      path: as rules see it, "Dense_0/kernel".
      leaf: an array, or anything with a shape.
      owner: the node that holds it: a module, a dict, a list.
      beside: the other leaves that this node holds, by name.
    """

    path: str
    leaf: Any
    owner: Any
    beside: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its own name: "kernel"."""
        return self.path.rpartition("/")[2]

    @property
    def holder(self) -> str:
        """The name of what holds it: "Dense_0"."""
        return self.path.rpartition("/")[0].rpartition("/")[2]


class KernelShape(tuple[int, ...]):
    """A shape that knows which of its axes are what.

    `stack`: so many leading axes count layers. `channels`: "first" where input and output are the
    first two of the others (PyTorch's and Equinox's order), "last" where they are the last two.
    """

    stack: int
    channels: str

    def __new__(cls, shape: Sequence[int], stack: int = 0, channels: str = "last") -> KernelShape:
        """A tuple like any other, equal to `shape`."""
        made = super().__new__(cls, shape)
        made.stack, made.channels = stack, channels
        return made

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return math.prod(self[: self.stack])

    @property
    def layer(self) -> tuple[int, ...]:
        """The shape of one of them."""
        return tuple(self[self.stack :])

    @property
    def fans(self) -> tuple[int, ...]:
        """Input and output of one."""
        return self.layer[:2] if self.channels == "first" else self.layer[-2:]


def named_leaves(tree: PyTree) -> list[NamedLeaf]:
    """Every leaf with its path and what stands beside it, in the order of the leaves.

    >>> leaves = named_leaves({"dense": {"kernel": 1, "bias": 2}})
    >>> [(leaf.path, leaf.holder, sorted(leaf.beside)) for leaf in leaves]
    [('dense/bias', 'dense', ['kernel']), ('dense/kernel', 'dense', ['bias'])]
    """
    return list(_named_leaves(tree, (), None, {}))


def _name(path: Sequence[Any]) -> str:
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def _named_leaves(
    node: PyTree, path: tuple[Any, ...], owner: Any, beside: Mapping[str, Any]
) -> Iterator[NamedLeaf]:
    children = [
        (p[0], c)
        for p, c in jax.tree_util.tree_leaves_with_path(node, is_leaf=lambda n: n is not node)
        if p
    ]
    if (
        path
        and [key for key, _ in children] == [jax.tree_util.GetAttrKey("value")]
        and _is_leaf(children[0][1])
    ):
        # NNX's Param adds an attribute "value", which says nothing. (A dict's key "value" stays.)
        yield NamedLeaf(_name(path), children[0][1], owner, beside)
        return
    if not children:
        if node is not None and jax.tree.leaves(node):
            yield NamedLeaf(_name(path), node, owner, beside)
        return
    names = {_name((key,)): _bare(child) for key, child in children if _is_leaf(_bare(child))}
    for key, child in children:
        yield from _named_leaves(
            child, (*path, key), node, {n: leaf for n, leaf in names.items() if n != _name((key,))}
        )


def _bare(child: PyTree) -> Any:
    inside = jax.tree_util.tree_leaves_with_path(child)
    return (
        inside[0][1] if [p for p, _ in inside] == [(jax.tree_util.GetAttrKey("value"),)] else child
    )


def _is_leaf(node: Any) -> bool:
    return node is not None and jax.tree_util.all_leaves([node])


def is_matrix(leaf: Any) -> bool:
    """Whether a leaf has two axes or more, as kernels have and biases and norms have not."""
    return len(leaf.shape) >= 2


def is_kernel(leaf: Any, named: NamedLeaf) -> bool:
    """Whether a leaf of a kernel's name is one: two axes or more, and no norm's or embedding's."""
    return is_matrix(leaf) and not is_norm_or_table(named)


def is_norm_or_table(named: NamedLeaf) -> bool:
    """Whether a leaf is a norm's or an embedding table, by what holds it or stands beside it."""
    if any(_CLASS.search(kind.__name__) for kind in type(named.owner).__mro__):
        return True
    if _KERNEL.search(named.name):
        return False
    biases = [tuple(jnp.shape(leaf)) for name, leaf in named.beside.items() if _BIAS.search(name)]
    if tuple(named.leaf.shape) in biases or _NORM.search(named.holder) or _NORM.search(named.name):
        return True
    # A layer may be called "embed", too, but then it has a bias or is a convolution; a table has
    # neither.
    return bool(
        _TABLE.search(named.name)
        or (_TABLE.search(named.holder) and not biases and len(named.leaf.shape) == 2)
    )


def counts_as_matrix(named: NamedLeaf) -> bool:
    """Whether a leaf has two real axes and is no bias, norm or table."""
    leaf = named.leaf
    inexact = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)
    return (
        inexact
        and sum(n > 1 for n in leaf.shape) >= 2
        and not (
            is_norm_or_table(named) or _BIAS.search(named.name) or _NO_MATRIX.search(named.name)
        )
    )


def shape_of(
    named: NamedLeaf, stacked: Sequence[str] | None = None, channels: Channels = "auto"
) -> KernelShape:
    """The shape of a kernel, with what its axes are.

    Args:
      named: of a kernel.
      stacked: path patterns of the leaves whose first axis counts layers; None to recognise them.
      channels: "first", "last", or "auto": first in leaves called "weight".
    """
    if stacked is None:
        stack = _stack(named)
    else:
        stack = int(
            len(named.leaf.shape) > 1 and any(re.search(pattern, named.path) for pattern in stacked)
        )
    if channels == "auto":
        channels = "first" if _FIRST.search(named.name) else "last"
    return KernelShape(named.leaf.shape, stack, channels)


def _stack(named: NamedLeaf) -> int:
    """How many leading axes count layers, as far as it can be told.

    A module that knows how many axes its kernel has (Equinox) tells it. Elsewhere a bias does that
    is one vector per layer: kernel [L, ..., in, out] and bias [L, out], and nothing else beside
    them.
    """
    owner, shape = named.owner, tuple(named.leaf.shape)
    if not isinstance(owner, Mapping):
        if isinstance(spatial := getattr(owner, "num_spatial_dims", None), int):
            return max(0, len(shape) - spatial - 2)
        if any(
            hasattr(owner, a) and hasattr(owner, b)
            for a, b in (("in_features", "out_features"), ("input_size", "hidden_size"))
        ):
            return max(0, len(shape) - 2)
    if len(shape) < 3 or len(named.beside) != 1:
        return 0
    (name, bias), out = next(iter(named.beside.items())), 1 if _FIRST.search(named.name) else -1
    ours = (shape[0], shape[out])
    # A dense layer from one axis to two, as attention has, may look the same: kernel [in, heads,
    # width], bias [heads, width].
    return int(bool(_BIAS.search(name)) and tuple(jnp.shape(bias)) == ours and ours != shape[1:])
