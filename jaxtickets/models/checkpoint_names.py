"""The leaf of our params for every tensor of a Hugging Face checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from jaxtickets.errors import CheckpointError
from jaxtickets.models.transformer_config import TransformerConfig

PyTree = Any
HeadKind = Literal["classifier", "masked_lm"]


class Tensor(NamedTuple):
    """A tensor of a checkpoint, and the leaf of our params that it is.

    Args:
      path: where it is in the params, `"encoder/pooler/kernel"`.
      name: its name in a checkpoint, without the prefix of the family.
      shape: its shape there. Torch's dense kernels are [out, in], ours [in, out].
    """

    path: str
    name: str
    shape: tuple[int, ...]

    @property
    def transposed(self) -> bool:
        """Whether our array is the transposed one."""
        return self.path.endswith("/kernel")


def encoder_tensors(c: TransformerConfig) -> list[Tensor]:
    """The tensors of an encoder without its pooler."""
    tables = {"word": c.vocabulary, "position": c.positions, "token_type": c.token_types}
    tensors = [
        Tensor(f"encoder/{table}/embedding", f"embeddings.{table}_embeddings.weight", (n, c.width))
        for table, n in tables.items()
    ]
    tensors += _norm("encoder/norm", "embeddings.LayerNorm", c.width)
    for i in range(c.layers):
        ours, theirs = f"encoder/layer_{i}", f"encoder.layer.{i}"
        for part in ("query", "key", "value"):
            tensors += _dense(f"{ours}/{part}", f"{theirs}.attention.self.{part}", c.width, c.width)
        tensors += _dense(
            f"{ours}/attention_output", f"{theirs}.attention.output.dense", c.width, c.width
        )
        tensors += _norm(f"{ours}/attention_norm", f"{theirs}.attention.output.LayerNorm", c.width)
        tensors += _dense(
            f"{ours}/intermediate", f"{theirs}.intermediate.dense", c.width, c.intermediate
        )
        tensors += _dense(f"{ours}/output", f"{theirs}.output.dense", c.intermediate, c.width)
        tensors += _norm(f"{ours}/output_norm", f"{theirs}.output.LayerNorm", c.width)
    return tensors


def pooler_tensors(c: TransformerConfig) -> list[Tensor]:
    """The tensors of a pooler."""
    return list(_dense("encoder/pooler", "pooler.dense", c.width, c.width))


def head_tensors(c: TransformerConfig, kind: HeadKind, outputs: int = 2) -> list[Tensor]:
    """The tensors of a head; their names have no prefix."""
    bert = c.family == "bert"
    if kind == "classifier":
        if bert:
            return list(_dense("head/classifier", "classifier", c.width, outputs))
        return [
            *_dense("head/dense", "classifier.dense", c.width, c.width),
            *_dense("head/classifier", "classifier.out_proj", c.width, outputs),
        ]
    root, dense, norm = (
        ("cls.predictions", "transform.dense", "transform.LayerNorm")
        if bert
        else ("lm_head", "dense", "layer_norm")
    )
    kernels = [
        *_dense("head/dense", f"{root}.{dense}", c.width, c.width),
        *_norm("head/norm", f"{root}.{norm}", c.width),
    ]
    table = (
        [] if c.tied else [Tensor("head/table", f"{root}.decoder.weight", (c.vocabulary, c.width))]
    )
    return [*kernels, *table, Tensor("head/bias", word_bias(c), (c.vocabulary,))]


def word_bias(c: TransformerConfig) -> str:
    """The name of the bias of a masked language model.

    A table that is not shared has its own beside it, `decoder.bias`.
    """
    root = "cls.predictions" if c.family == "bert" else "lm_head"
    return f"{root}.bias" if c.tied else f"{root}.decoder.bias"


def _dense(path: str, name: str, i: int, o: int) -> Iterator[Tensor]:
    yield Tensor(f"{path}/kernel", f"{name}.weight", (o, i))
    yield Tensor(f"{path}/bias", f"{name}.bias", (o,))


def _norm(path: str, name: str, n: int) -> Iterator[Tensor]:
    yield Tensor(f"{path}/scale", f"{name}.weight", (n,))
    yield Tensor(f"{path}/bias", f"{name}.bias", (n,))


# Heads of pretraining and of other tasks, and buffers that follow from the config.
_HEADS = ("cls.", "lm_head.", "classifier.", "qa_outputs.")
_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
_WORDS = "embeddings.word_embeddings.weight"


def plain_names(names: list[str], c: TransformerConfig, where: str) -> dict[str, str]:
    """The names of a checkpoint's tensors as `Tensor.name` has them, with those they had.

    Buffers left out.

    What stands before the table of words is cut off (`bert.`, `module.bert.`, `backbone.`), from
    heads as well, and the old names of norms made new.

    Raises:
      CheckpointError: two tensors of one name, or two encoders.
    """
    family = f"{c.family}."
    prefixes = sorted(
        {name.removesuffix(_WORDS) for name in names if name.endswith(_WORDS)} - {"", family},
        key=len,
    )
    if len(prefixes) > 1:
        raise CheckpointError(
            f"{where}: holds several encoders, {', '.join(map(repr, prefixes[:5]))}; leave all but"
            " one out with ignore=."
        )
    prefix = prefixes[0] if prefixes else ""
    wrapper_prefix = prefix.removesuffix(family)  # of a wrapper: heads have it too
    plain: dict[str, str] = {}
    for stored_name in names:
        name = (
            stored_name.removeprefix(prefix)
            if stored_name.startswith(prefix)
            else stored_name.removeprefix(wrapper_prefix)
        )
        name = name.removeprefix(family)
        for old, new in (
            ("LayerNorm.gamma", "LayerNorm.weight"),
            ("LayerNorm.beta", "LayerNorm.bias"),
        ):
            name = name.removesuffix(old) + new if name.endswith(old) else name
        if name in plain:
            raise CheckpointError(
                f"{where}: {plain[name]!r} and {stored_name!r} are the same tensor; one of them has"
                " to go."
            )
        if name not in _BUFFERS:
            plain[name] = stored_name
    return plain


def is_head(name: str) -> bool:
    """Whether a tensor belongs to a head."""
    return name.startswith(_HEADS)


def build(arrays: dict[str, Any]) -> PyTree:
    """The tree of arrays that are given by path."""
    tree: dict[str, Any] = {}
    for path, value in arrays.items():
        *above, leaf = path.split("/")
        node = tree
        for part in above:
            node = node.setdefault(part, {})
        node[leaf] = value
    return tree
