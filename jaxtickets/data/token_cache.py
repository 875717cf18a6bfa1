"""A cache of token ids on the disk: made once, checked when read, remade when damaged."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jaxtickets.errors import DataError
from jaxtickets.files.whole import whole_file
from jaxtickets.messages.quoting import shown, told

_VERSION = 1  # of what a file means; another one is another key
_DTYPES = {
    "input_ids": np.dtype(np.int32),
    "token_type_ids": np.dtype(np.uint8),
    "attention_mask": np.dtype(bool),
}

Tokens = dict[str, np.ndarray]


def token_key(first: Sequence[str], second: Sequence[str] | None, settings: str) -> str:
    """A digest of all that ids depend on: the texts, where they end, and the tokenizer.

    Args:
      first: N texts.
      second: N texts, or None.
      settings: `Encoder.digest`.

    Returns:
      32 hexadecimal digits.
    """
    digest = hashlib.sha256(f"{_VERSION} {settings} {second is not None} {len(first)}\n".encode())
    for texts in (first, second or ()):
        for text in texts:
            raw = text.encode()
            digest.update(len(raw).to_bytes(8, "little"))
            digest.update(raw)
    return digest.hexdigest()[:32]


def cached_tokens(
    folder: Path | None, key: str, shape: tuple[int, int], make: Callable[[], Tokens]
) -> Tokens:
    """The tokens of a key from the folder; made, and put there, when they are not.

    What is read is compared with the digest that was written with it.

    Args:
      folder: where the files are; it is made. None: nothing is read or kept.
      key: `token_key`.
      shape: (N, T).
      make: gives input_ids int32, token_type_ids uint8 and attention_mask bool, each [N, T].

    Returns:
      what `make` gives.

    Warns:
      UserWarning: a damaged file is replaced, or the folder cannot be written to.
    """
    if folder is None:
        return make()
    path = folder / f"{key}.safetensors"
    try:
        if path.is_file():
            return _read(path, shape)
    except DataError as error:
        warnings.warn(f"{error}. Texts are tokenised again", stacklevel=2)
    tokens = make()
    try:
        _write(path, tokens)
    except OSError as error:
        warnings.warn(
            f"{folder}: tokens cannot be kept there: {error}. Pass another folder, or cache=False",
            stacklevel=2,
        )
    return tokens


def _read(path: Path, shape: tuple[int, int]) -> Tokens:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            slices = {name: file.get_slice(name) for name in names[: len(_DTYPES)]}
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
            if len(names) != len(_DTYPES) or shapes != dict.fromkeys(_DTYPES, shape):
                raise DataError(
                    f"{path}: damaged: {shown(shapes)} found, {', '.join(_DTYPES)} of {list(shape)}"
                    " expected"
                )
            tokens = {name: file.get_tensor(name) for name in _DTYPES}
    except DataError:
        raise
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        unread = isinstance(error, OSError) and error.errno is not None
        raise DataError(
            f"{path}: {'cannot be read' if unread else 'damaged'}: {told(error)}"
        ) from error
    if any(tokens[name].dtype != dtype for name, dtype in _DTYPES.items()) or metadata.get(
        "sha256"
    ) != _digest(tokens):
        raise DataError(f"{path}: damaged: its contents are not those that were written")
    return tokens


def _write(path: Path, tokens: Tokens) -> None:
    from safetensors.numpy import save

    raw = save(tokens, {"sha256": _digest(tokens)})
    with whole_file(path) as file:
        file.write(raw)


def _digest(tokens: Tokens) -> str:
    digest = hashlib.sha256()
    for name in _DTYPES:
        digest.update(f"{name}{tokens[name].dtype}{tokens[name].shape}".encode())
        digest.update(np.ascontiguousarray(tokens[name]).data)
    return digest.hexdigest()
