"""The numbers of a BERT or RoBERTa encoder; from and to the `config.json` of Hugging Face."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np

from jaxtickets.errors import CheckpointError
from jaxtickets.messages.checks import is_int
from jaxtickets.messages.quoting import shown
from jaxtickets.models.activations import ACTIVATIONS

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
    "activation": "hidden_act",
    "tied": "tie_word_embeddings",
}
# The largest counts that are taken: far above any encoder's, and what is built of them ends.
_COUNTS = {
    "vocabulary": 2**24,
    "layers": 1000,
    "width": 2**16,
    "heads": 2**16,
    "intermediate": 2**18,
    "positions": 2**20,
    "token_types": 2**16,
}
_MOST_WEIGHTS = 10**11
# Hugging Face leaves a setting out of the file where it is the family's default.
_DEFAULTS: dict[str, dict[str, Any]] = {"bert": {}, "roberta": {"vocabulary": 50265, "padding": 1}}
# Settings that change the function; others (caches, token ids, dtypes, how it is computed in
# pieces) do not.
_ONLY: dict[str, Any] = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": {},
    "quantization_config": None,
    "is_encoder_decoder": False,
    "auto_map": None,  # code that comes with the checkpoint: another network under this name
}
_ARCHITECTURE = re.compile(
    r"(Bert|Roberta)(Model|For(MaskedLM|PreTraining|\w+Classification|MultipleChoice|QuestionAnswering|\w+Prediction))"
)


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """The config of an encoder of the BERT family; the defaults are BERT-base's, uncased.

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
      activation: the function inside a layer's feed-forward part, as Hugging Face calls it: "gelu",
        "gelu_new", "relu", "silu", ...
      tied: whether a masked language model's last layer is the table of words; False for a table of
        its own.

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
    activation: str = "gelu"
    tied: bool = True

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, np.generic):  # so that it goes to JSON
                object.__setattr__(self, name, value.item())
        for _, problem in _problems(vars(self)):
            raise ValueError(f"TransformerConfig: {problem}")

    def __str__(self) -> str:
        return f"{self.family} {self.layers}x{self.width}"

    @property
    def max_length(self) -> int:
        """The most tokens that a text may have."""
        return self.positions - self.first_position

    @property
    def first_position(self) -> int:
        """The row of the table of positions that the first token has."""
        return _first_position(self.family, self.padding)

    @property
    def head_dropout(self) -> float:
        """The share that is dropped before a classifier."""
        return self.dropout if self.classifier_dropout is None else self.classifier_dropout

    @classmethod
    def from_hf(cls, settings: Mapping[str, Any], where: str = "config.json") -> TransformerConfig:
        """The config in a Hugging Face `config.json`.

        Args:
          settings: the parsed file.
          where: its name, for messages.

        Raises:
          CheckpointError: another architecture, a setting that is not supported, or a number that
            cannot be; names the file and the field.

        >>> str(TransformerConfig.from_hf({"model_type": "roberta", "num_hidden_layers": 6}))
        'roberta 6x768'
        """
        if not isinstance(settings, Mapping):
            raise CheckpointError(
                f"{where}: holds a {type(settings).__name__}; a dictionary of settings was"
                " expected."
            )
        family = _family(settings, where)
        for name, only in (_ONLY | {"embedding_size": settings.get("hidden_size", 768)}).items():
            got = settings.get(name)
            if got is not None and got != only and (got or only):
                raise CheckpointError(
                    f"{where}: {name} is {got!r:.200}; supported is {only!r} alone."
                )
        values: dict[str, Any] = {"family": family} | _DEFAULTS[family]
        values |= {
            field: settings[theirs] for field, theirs in _FIELDS.items() if theirs in settings
        }
        if values.get("padding", 0) is None and family == "bert":
            values["padding"] = 0  # BERT's function does not know it
        for name, problem in _problems(
            {field.name: field.default for field in dataclasses.fields(cls)} | values
        ):
            raise CheckpointError(f"{where}: {_FIELDS[name]}: {problem}")
        return cls(**values)

    def to_hf(self) -> dict[str, Any]:
        """The settings as Hugging Face's `config.json` has them; `from_hf` reads them back.

        >>> TransformerConfig.from_hf(TransformerConfig().to_hf()) == TransformerConfig()
        True
        """
        settings = {theirs: getattr(self, field) for field, theirs in _FIELDS.items()}
        return {"model_type": self.family, **settings}


def _family(settings: Mapping[str, Any], where: str) -> Any:
    """The family that a config names.

    Where it does not, as old ones do not, that of its network's class.
    """
    allowed = ", ".join(map(repr, get_args(Family)))
    family = settings.get("model_type")
    if family is None:
        classes = settings.get("architectures")
        matches = (
            [_ARCHITECTURE.fullmatch(str(name)) for name in classes]
            if isinstance(classes, list)
            else []
        )
        families = {match[1].lower() for match in matches if match}
        if len(families) != 1 or not all(matches):
            raise CheckpointError(
                f'{where}: has no model_type. Write "model_type": "bert" (or what it is of'
                f" {allowed}) into it."
            )
        return families.pop()
    if family not in get_args(Family):
        raise CheckpointError(f"{where}: model_type is {family!r:.200}; supported are {allowed}.")
    return family


def _first_position(family: str, padding: int) -> int:
    return padding + 1 if family == "roberta" else 0


def _problems(fields: dict[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with the fields of a config: each problem's field, and a sentence."""
    family = fields["family"]
    if family not in get_args(Family):
        return [
            (
                "family",
                f"family is one of {', '.join(map(repr, get_args(Family)))}; got {shown(family)}.",
            )
        ]
    problems = []
    for name, most in (_COUNTS | {"padding": _COUNTS["vocabulary"]}).items():
        value: Any = fields[name]
        least = 0 if name == "padding" else 1
        if not is_int(value) or not least <= value <= most:
            problems.append(
                (name, f"{name} is an integer from {least} to {most}; got {shown(value)}.")
            )
    for name in ("eps", "dropout", "attention_dropout", "classifier_dropout", "initial_scale"):
        if name == "classifier_dropout" and fields[name] is None:
            continue
        value: Any = fields[name]
        share = name.endswith("dropout")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not (0 <= value < 1 if share else 0 < value <= 100):
            problems.append(
                (
                    name,
                    (
                        f"{name} is a number {'in [0, 1)' if share else 'above 0, at most 100'};"
                        f" got {shown(value)}."
                    ),
                )
            )
    if fields["activation"] not in ACTIVATIONS:
        problems.append(
            (
                "activation",
                (
                    f"activation is one of {', '.join(ACTIVATIONS)}; got"
                    f" {shown(fields['activation'])}."
                ),
            )
        )
    if not isinstance(fields["tied"], bool):
        problems.append(("tied", f"tied is True or False; got {shown(fields['tied'])}."))
    if problems:
        return problems
    width, heads, vocabulary, padding = (
        fields[name] for name in ("width", "heads", "vocabulary", "padding")
    )
    first = _first_position(family, padding)
    if width % heads:
        return [("heads", f"heads divide the width; got {heads} heads and a width of {width}.")]
    if padding >= vocabulary:
        return [
            ("padding", f"padding is a token, below the vocabulary of {vocabulary}; got {padding}.")
        ]
    if fields["positions"] <= first:
        return [
            (
                "positions",
                (
                    f"positions leave no room for a token: {fields['positions']}, of which the"
                    f" first {first} are no token's."
                ),
            )
        ]
    tables = vocabulary + fields["positions"] + fields["token_types"]
    weights = width * (tables + fields["layers"] * (4 * width + 2 * fields["intermediate"]))
    if weights > _MOST_WEIGHTS:
        return [
            (
                "layers",
                (
                    f"these sizes are those of a network of {weights:.1e} weights; at most"
                    f" {_MOST_WEIGHTS:.0e} are taken."
                ),
            )
        ]
    return []
