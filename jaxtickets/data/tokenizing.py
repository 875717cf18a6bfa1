"""Texts to token ids, as a tokenizer of Hugging Face's would give them by its own call."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxtickets.errors import DataError, DataNotFoundError
from jaxtickets.files import paths
from jaxtickets.messages.quoting import cut, told

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_MOST = 2**28  # bytes of a file; those of the largest tokenizers have some 2^25
_CHUNK = 8192  # texts at a time: their encodings are some hundred times as large as their ids
_INSTALL = "texts are tokenised by transformers: pip install 'jaxtickets[nlp]'"


@dataclasses.dataclass(frozen=True)
class Encoder:
    """A tokenizer with its settings at the time when it was given.

    Settings that are changed afterwards do not reach it.

    Args:
      description: the tokenizer as JSON, all of it: vocabulary, normaliser, template of special
        tokens.
      pad_id: the id that fills up.
      pad_type_id: the token type there.
      direction: the side that is cut: "right" or "left".
      split_special: whether special tokens that stand in a text are taken apart like other words.
      longest: the most tokens the tokenizer says its model takes, or None.
      with_types: whether its model takes token types; where it does not, they are all 0, which is
        none.
    """

    description: str
    pad_id: int
    pad_type_id: int
    direction: str
    split_special: bool
    longest: int | None
    with_types: bool = True

    def digest(self, max_length: int) -> str:
        """A digest of all that ids depend on besides the texts, in 64 hexadecimal digits."""
        settings = dataclasses.asdict(self)
        if self.with_types:  # as it was when all did
            del settings["with_types"]
        return hashlib.sha256(
            json.dumps([settings, max_length], sort_keys=True).encode()
        ).hexdigest()

    def encode(
        self, first: Sequence[str], second: Sequence[str] | None, max_length: int
    ) -> dict[str, np.ndarray]:
        """The ids of texts or pairs of them, with special tokens, filled up on the right.

        What is too long loses tokens one at a time from the longer of the two texts.

        Args:
          first: N texts.
          second: N texts, or None.
          max_length: T, with the special tokens.

        Returns:
          input_ids int32, token_type_ids uint8 and attention_mask bool, each [N, T].

        Raises:
          DataError: a `max_length` that leaves no room for a token of each text, or above what the
            model takes.
        """
        from tokenizers import Tokenizer

        backend = Tokenizer.from_str(self.description)
        least = backend.num_special_tokens_to_add(second is not None) + (1 if second is None else 2)
        most = self.longest
        if (
            isinstance(max_length, bool)
            or not isinstance(max_length, int)
            or max_length < least
            or (most and max_length > most)
        ):
            top = (
                f"at most {most}, what the tokenizer's model takes"
                if most
                else "128 in the literature"
            )
            raise DataError(
                f"max_length is a number of tokens, at least {least} with the special ones, {top};"
                f" got {max_length!r}"
            )
        backend.enable_truncation(max_length, strategy="longest_first", direction=self.direction)
        backend.encode_special_tokens = self.split_special
        ids = np.full((len(first), max_length), self.pad_id, np.int32)
        types = np.full(
            (len(first), max_length), self.pad_type_id if self.with_types else 0, np.uint8
        )
        mask = np.zeros((len(first), max_length), bool)
        for start in range(0, len(first), _CHUNK):
            texts = first[start : start + _CHUNK]
            batch = (
                list(texts)
                if second is None
                else list(zip(texts, second[start : start + _CHUNK], strict=True))
            )
            for row, encoding in enumerate(backend.encode_batch(batch), start):
                size = len(encoding.ids)
                try:
                    ids[row, :size], mask[row, :size] = encoding.ids, encoding.attention_mask
                    if self.with_types:
                        types[row, :size] = encoding.type_ids
                except OverflowError as error:
                    raise DataError(
                        f"tokenizer: it gives ids that no vocabulary has: {told(error)}. Fetch it"
                        " again"
                    ) from None
        return {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}


def encoder(tokenizer: Any) -> Encoder:
    """The encoder of whatever says which tokenizer it is.

    Args:
      tokenizer: a fast tokenizer of transformers (it is not changed); a `vocab.txt` of BERT, one
        token a line, which gives the lower-casing WordPiece of the uncased models; a folder with a
        tokenizer's files (or a `vocab.txt` alone); or a name on the Hugging Face hub, such as
        "bert-base-uncased", which downloads.

    Returns:
      the `Encoder`.

    Raises:
      DataError: a tokenizer in Python, one without a padding token or that fills up on the left,
        files that are damaged, a vocabulary without BERT's special tokens, with a token twice, or
        of a model that tells capitals apart.
      DataNotFoundError: no such file, folder or name.
      ImportError: transformers is not installed.
    """
    if isinstance(tokenizer, str | os.PathLike):
        tokenizer = _named(os.fspath(tokenizer))
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not hasattr(backend, "to_str"):
        raise DataError(
            "tokenizer is a fast tokenizer of transformers, a folder, a vocab.txt or a name on the"
            f" hub; got {type(tokenizer).__name__}. Those that are written in Python have no"
            " description that a cache could be keyed by: AutoTokenizer.from_pretrained(NAME)"
        )
    if tokenizer.pad_token_id is None:
        raise DataError(
            f"{type(tokenizer).__name__} has no padding token; set one: tokenizer.pad_token ="
            " tokenizer.eos_token"
        )
    if tokenizer.padding_side != "right":
        raise DataError(
            f"{type(tokenizer).__name__} fills up on the {tokenizer.padding_side}, and positions"
            " are counted from the first token; set tokenizer.padding_side = 'right'"
        )
    try:
        # An earlier call leaves its truncation and padding in the backend; neither is part of what
        # the tokenizer is.
        description = {**json.loads(backend.to_str()), "truncation": None, "padding": None}
        longest = int(min(tokenizer.model_max_length, 2**31))
        result = Encoder(
            description=json.dumps(description, ensure_ascii=False),
            pad_id=int(tokenizer.pad_token_id),
            pad_type_id=int(tokenizer.pad_token_type_id),
            direction=tokenizer.truncation_side,
            split_special=bool(getattr(tokenizer, "split_special_tokens", False)),
            longest=longest if longest < 2**31 else None,
            with_types="token_type_ids" in tokenizer.model_input_names,
        )
        if not (0 <= result.pad_id < 2**31 and 0 <= result.pad_type_id < 2**8):
            raise ValueError(f"a padding token of id {result.pad_id} and type {result.pad_type_id}")
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(
            f"tokenizer: its settings are damaged: {told(error)}. Fetch it again"
        ) from None
    return result


def _named(name: str) -> Any:
    try:
        path = paths.given(name, "tokenizer: its name")
    except ValueError as error:
        raise DataError(str(error)) from None
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ImportError(f"{_INSTALL} ({error})") from error
    if path.is_file():
        return _of_vocabulary(path)
    if (
        path.is_dir()
        and (path / "vocab.txt").is_file()
        and not any((path / f).is_file() for f in ("tokenizer.json", "tokenizer_config.json"))
    ):
        return _of_vocabulary(path / "vocab.txt")
    if not path.is_dir() and (
        path.suffix == ".txt" or path.is_absolute() or name.startswith((".", "~"))
    ):
        raise DataNotFoundError(
            f"tokenizer: {path} is not there. Pass a vocab.txt, a folder with a tokenizer, or a"
            " name on the hub"
        )
    for file in sorted(path.iterdir()) if path.is_dir() else ():
        if file.suffix in (".json", ".txt") and file.stat().st_size > _MOST:
            raise DataError(
                f"{file}: has {file.stat().st_size:,} bytes; a tokenizer's files have at most"
                f" {_MOST:,}"
            )
    try:
        return AutoTokenizer.from_pretrained(
            str(path) if path.is_dir() else name, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        message = cut((str(error).strip() or type(error).__name__).splitlines()[0], 500)
        raise DataNotFoundError(
            f"tokenizer: {name} cannot be loaded: {message} Pass a folder with tokenizer.json and"
            " config.json, or BERT's vocab.txt"
        ) from error
    except ImportError:
        raise
    # What is in the files decides how it fails: a RecursionError, a KeyError, one of Rust's.
    except Exception as error:
        raise DataError(
            f"tokenizer: {name} is damaged, or is none: {told(error)}. Fetch it again, or pass"
            " BERT's vocab.txt"
        ) from error


def _of_vocabulary(path: Path) -> Any:
    """BERT's lower-casing tokenizer of a vocabulary file.

    A token's id is its line, counted from 0.
    """
    from transformers import BertTokenizer

    try:
        with path.open("rb") as file:
            raw = file.read(_MOST + 1)
        if len(raw) > _MOST:
            raise DataError(f"{path}: has more than {_MOST:,} bytes; a vocabulary has less")
        tokens = raw.decode("utf-8-sig").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read as a vocabulary, UTF-8 with one token a line: {error}"
        ) from error
    if "\r" in tokens[0] and len(tokens) == 1:  # line ends of old Macs
        tokens = tokens[0].removesuffix("\r").split("\r")
    vocabulary = {token.removesuffix("\r"): number for number, token in enumerate(tokens)}
    if lacking := [token for token in _SPECIAL if token not in vocabulary]:
        raise DataError(
            f"{path}: lacks {', '.join(lacking)}; it is not a vocab.txt of BERT, one token a line."
            " Pass a tokenizer object"
        )
    if len(vocabulary) < len(tokens):
        raise DataError(
            f"{path}: {len(tokens) - len(vocabulary)} tokens stand in it twice, so ids cannot be"
            " told. Fetch it again"
        )
    capitals = [
        token for token in vocabulary if token != token.lower() and not token.startswith("[")
    ]
    if len(capitals) > len(vocabulary) / 100:
        raise DataError(
            f"{path}: {len(capitals):,} of its tokens have capitals ({', '.join(capitals[:3])},"
            " ...), so its model tells them apart, and a vocab.txt is read as an uncased one. Pass"
            " the tokenizer: transformers.BertTokenizer(vocab=..., do_lower_case=False)"
        )
    return BertTokenizer(vocab=vocabulary, do_lower_case=True)
