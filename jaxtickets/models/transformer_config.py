"""What a BERT or RoBERTa encoder is, as numbers; from and to the `config.json` of Hugging Face."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

from jaxtickets.checks import is_int, is_number
from jaxtickets.errors import CheckpointError

Family = Literal["bert", "roberta"]

_FIELDS = {
    "vocabulary": "vocab_size",
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "intermediate": "intermediate_size",
    "positions": "max_position_embeddings",
    "token_types": "type_vocab_size",
    "padding": "pad_token_id",
    "eps": "layer_norm_eps",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "classifier_dropout": "classifier_dropout",
    "initial_scale": "initializer_range",
}
_COUNTS = ("vocabulary", "layers", "width", "heads", "intermediate", "positions", "token_types")
# Hugging Face leaves a setting out of the file where it is the family's default.
_DEFAULTS: dict[str, dict[str, Any]] = {"bert": {}, "roberta": {"vocabulary": 50265, "padding": 1}}
# Settings that change the function; others (caches, token ids, names of labels) do not.
_ONLY: dict[str, Any] = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": {},
    "quantization_config": None,
}


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """An encoder of the BERT family; the defaults are those of BERT-base, uncased.

    Args:
      family: "bert" or "roberta": how positions are counted and what head a classifier has.
      vocabulary: tokens that there are.
      layers: transformer layers.
      width: channels of a token, W.
      heads: attention heads; they divide W.
      intermediate: channels inside a layer's feed-forward part.
      positions: rows of the table of positions. RoBERTa's first `padding + 1` are never a token's.
      token_types: rows of the table of token types (first or second sentence).
      padding: the token that fills texts up.
      eps: of the layer norms.
      dropout: share of hidden activations dropped in training.
      attention_dropout: share of attention weights dropped in training.
      classifier_dropout: share dropped before a classifier; None for `dropout`.
      initial_scale: standard deviation of fresh kernels and tables.

    Raises:
      ValueError: a number that cannot be.

    >>> small = TransformerConfig(layers=2, width=128, heads=2, intermediate=512)
    >>> str(small), small.max_length
    ('bert 2x128', 512)

    References:
      Devlin et al. 2019, "BERT", arXiv:1810.04805; Liu et al. 2019, "RoBERTa", arXiv:1907.11692.
    """

    family: Family = "bert"
    vocabulary: int = 30522
    layers: int = 12
    width: int = 768
    heads: int = 12
    intermediate: int = 3072
    positions: int = 512
    token_types: int = 2
    padding: int = 0
    eps: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    classifier_dropout: float | None = None
    initial_scale: float = 0.02

    def __post_init__(self) -> None:
        for _, problem in _problems(vars(self)):
            raise ValueError(f"TransformerConfig: {problem}")

    def __str__(self) -> str:
        return f"{self.family} {self.layers}x{self.width}"

    @property
    def max_length(self) -> int:
        """The most tokens of a text."""
        return self.positions - self.first_position

    @property
    def first_position(self) -> int:
        """The row of the table of positions that the first token has."""
        return _first_position(self.family, self.padding)

    @property
    def head_dropout(self) -> float:
        """The share dropped before a classifier."""
        return self.dropout if self.classifier_dropout is None else self.classifier_dropout

    @classmethod
    def from_hf(cls, settings: Mapping[str, Any], where: str = "config.json") -> TransformerConfig:
        """The config in a Hugging Face `config.json`.

        Args:
          settings: the parsed file.
          where: its name, for messages.

        Raises:
          CheckpointError: another architecture, a setting that is not supported, or a number that cannot be; names the
            file and the field.

        >>> str(TransformerConfig.from_hf({"model_type": "roberta", "num_hidden_layers": 6}))
        'roberta 6x768'
        """
        if not isinstance(settings, Mapping):
            raise CheckpointError(f"{where}: holds a {type(settings).__name__}; a dictionary of settings was expected.")
        family: Any = settings.get("model_type")
        if family not in get_args(Family):
            raise CheckpointError(f"{where}: model_type is {family!r}; supported are {', '.join(map(repr, get_args(Family)))}.")
        for name, only in _ONLY.items():
            got = settings.get(name, only)
            if got != only and not (name == "pruned_heads" and not got):
                raise CheckpointError(f"{where}: {name} is {got!r}; supported is {only!r} alone.")
        values: dict[str, Any] = {"family": family} | _DEFAULTS[family]
        values |= {field: settings[theirs] for field, theirs in _FIELDS.items() if theirs in settings}
        if values.get("padding", 0) is None and family == "bert":
            values["padding"] = 0  # BERT's function does not know it
        for name, problem in _problems({field.name: field.default for field in dataclasses.fields(cls)} | values):
            raise CheckpointError(f"{where}: {_FIELDS[name]}: {problem}")
        return cls(**values)

    def to_hf(self) -> dict[str, Any]:
        """The settings as Hugging Face's `config.json` has them; `from_hf` reads them back.

        >>> TransformerConfig.from_hf(TransformerConfig().to_hf()) == TransformerConfig()
        True
        """
        named = {theirs: getattr(self, field) for field, theirs in _FIELDS.items()}
        return {"model_type": self.family, **named, "hidden_act": "gelu"}


def _first_position(family: str, padding: int) -> int:
    return padding + 1 if family == "roberta" else 0


def _problems(fields: dict[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with a config: the field, and a sentence."""
    family = fields["family"]
    if family not in get_args(Family):
        return [("family", f"family is one of {', '.join(map(repr, get_args(Family)))}; got {family!r}.")]
    found = []
    for name in (*_COUNTS, "padding"):
        value: Any = fields[name]
        least = 0 if name == "padding" else 1
        if not is_int(value) or value < least:
            found.append((name, f"{name} is an integer of at least {least}; got {value!r}."))
    for name in ("eps", "dropout", "attention_dropout", "classifier_dropout", "initial_scale"):
        if name == "classifier_dropout" and fields[name] is None:
            continue
        value: Any = fields[name]
        share = name.endswith("dropout")
        if not is_number(value) or not (0 <= value < 1 if share else value > 0):
            found.append((name, f"{name} is a number {'in [0, 1)' if share else 'above 0'}; got {value!r}."))
    if found:
        return found
    width, heads, vocabulary, padding = (fields[name] for name in ("width", "heads", "vocabulary", "padding"))
    first = _first_position(family, padding)
    if width % heads:
        return [("heads", f"heads divide the width; got {heads} heads and a width of {width}.")]
    if padding >= vocabulary:
        return [("padding", f"padding is a token, below the vocabulary of {vocabulary}; got {padding}.")]
    if fields["positions"] <= first:
        return [("positions", f"positions leave no room for a token: {fields['positions']}, of which the first {first} are no token's.")]
    return []
