"""Reads torch's weight files (`pytorch_model.bin`) without torch, and executes nothing in them.

Such a file is a zip archive of one pickle and the bytes of every storage. The pickle is walked, not
run (`jaxtickets.pickles`): it may name the functions that rebuild a tensor, ordered dictionaries
and storages, which are marks here and never called.
"""

from __future__ import annotations

import dataclasses
import math
import zipfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxtickets.errors import CheckpointError
from jaxtickets.files.archives import open_zip, stored
from jaxtickets.messages.quoting import shown, told
from jaxtickets.pickles import DAMAGE, Name, Refused, walk

_STORAGES: dict[str, Any] = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_NAMES = {
    "torch._utils _rebuild_tensor_v2": "tensor",
    "torch._utils _rebuild_parameter": "parameter",
    "collections OrderedDict": "dict",
} | {f"torch {name}": name for name in _STORAGES}
_MOST_PICKLE = 2**23  # bytes; that of BERT-large has 2^16
_MOST_COPIES = 4  # times the file's size, of tensors whose numbers do not lie in order
_MOST_AXES = 32
_MOST_NUMBER = 2**62  # of any length, offset or stride


@dataclasses.dataclass(frozen=True)
class _Storage:
    dtype: np.dtype[Any]
    key: str
    size: int


@dataclasses.dataclass(frozen=True)
class _View:
    """A tensor as a pickle describes it: a view of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a torch weight file, by name.

    Args:
      path: a file that `torch.save(state_dict)` wrote, in the zip format (torch 1.6 and later),
        with any pickle protocol.

    Returns:
      arrays, most of which cannot be written to: those whose numbers lie in order are views of
        their storage, as in torch.

    Raises:
      CheckpointError: the pickle in it names anything but tensors, storages and ordered
        dictionaries; the file is damaged, compressed, of the older format, or of the other byte
        order; a tensor reaches beyond its storage.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise CheckpointError(
                f"{path}: not a zip archive, so a file of torch before 1.6, or damaged. Where it is"
                " trusted, load it in torch with weights_only=True and write it anew with"
                " torch.save, or better with safetensors.torch.save_file."
            )
        with open_zip(path) as archive:
            return _read(archive, path)
    except CheckpointError:
        raise
    except Refused as error:
        raise CheckpointError(
            f"{path}: refused, nothing in it was executed: {error}. Weights need tensors in a"
            " dictionary only."
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {told(error)}.") from error
    except zipfile.BadZipFile as error:
        raise CheckpointError(
            f"{path}: damaged: {told(error)}. Torch compresses and encrypts nothing."
        ) from None
    except DAMAGE as error:
        raise CheckpointError(f"{path}: damaged: {told(error)}.") from None


def _read(archive: zipfile.ZipFile, path: Path) -> dict[str, np.ndarray]:
    pickles = [
        name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")
    ]
    if len(pickles) != 1:
        raise CheckpointError(f"{path}: holds {len(pickles)} data.pkl; torch writes one.")
    root = pickles[0].removesuffix("data.pkl")
    if (
        f"{root}byteorder" in archive.NameToInfo
        and stored(archive, f"{root}byteorder") != b"little"
    ):
        raise CheckpointError(
            f"{path}: written on a machine of big-endian byte order; write it anew on another."
        )
    size = archive.getinfo(pickles[0]).file_size
    if size > _MOST_PICKLE:
        raise CheckpointError(
            f"{path}: its pickle has {size:,} bytes; that of weights has at most {_MOST_PICKLE:,}."
        )
    content = walk(stored(archive, pickles[0]), _NAMES, _reduce, _build, _storage)
    if type(content) is not dict or not all(isinstance(name, str) for name in content):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__}; a dictionary of tensors by name was"
            " expected."
        )
    size = path.stat().st_size
    # members may lie in one another, and many tensors in one storage
    left, copies = size, _MOST_COPIES * size
    storages: dict[str, bytes] = {}
    tensors = {}
    for name, view in content.items():
        if not isinstance(view, _View):
            raise CheckpointError(
                f"{path}: {shown(name)} is a {type(view).__name__}, not a tensor. A training"
                " checkpoint? Give its state dict."
            )
        key = view.storage.key
        if key not in storages:
            left -= archive.getinfo(f"{root}data/{key}").file_size
            if left < 0:
                raise CheckpointError(
                    f"{path}: damaged: its storages have more bytes than the file."
                )
            storages[key] = stored(archive, f"{root}data/{key}")
        array = _array(view, storages[key], f"{path}: {shown(name)}")
        if not array.flags.c_contiguous:
            copies -= array.nbytes
            if copies < 0:
                raise CheckpointError(
                    f"{path}: its tensors are more than {_MOST_COPIES} times as large as the file."
                )
            array = np.ascontiguousarray(array)
        tensors[name] = array
    return tensors


def _array(view: _View, raw: bytes, where: str) -> np.ndarray:
    storage = view.storage
    if len(raw) != storage.size * storage.dtype.itemsize:
        raise CheckpointError(
            f"{where}: its storage has {len(raw):,} bytes; {storage.size:,} numbers of"
            f" {storage.dtype} were announced."
        )
    count = math.prod(view.shape)
    last = (
        view.offset
        + sum((n - 1) * stride for n, stride in zip(view.shape, view.strides, strict=True))
        if count
        else 0
    )
    if count > storage.size or last >= max(storage.size, 1):
        raise CheckpointError(
            f"{where}: of shape {list(view.shape)} reaches beyond the {storage.size:,} numbers of"
            " its storage."
        )
    flat = np.frombuffer(raw, storage.dtype)[view.offset if count else 0 :]
    strides = tuple(stride * storage.dtype.itemsize for stride in view.strides)
    return np.lib.stride_tricks.as_strided(flat, view.shape, strides, writeable=False)


def _natural(*values: Any) -> bool:
    return all(type(n) is int and 0 <= n < _MOST_NUMBER for n in values)


def _storage(identity: Any) -> _Storage:
    match identity:
        case ("storage", Name(name=kind), str() as key, str(), int() as size) if (
            kind in _STORAGES and _natural(size) and "/" not in key
        ):
            return _Storage(np.dtype(_STORAGES[kind]), key, size)
    raise Refused(f"it refers to {shown(identity)}, which is no storage")


def _reduce(function: str, arguments: tuple[Any, ...]) -> Any:
    match function, arguments:
        case "dict", ():
            return {}
        case "tensor", (
            _Storage() as storage,
            int() as offset,
            tuple() as shape,
            tuple() as strides,
            *_,
        ):
            if len(shape) == len(strides) <= _MOST_AXES and _natural(offset, *shape, *strides):
                return _View(storage, offset, shape, strides)
        case "parameter", (_View() as view, *_):
            return view
    raise Refused(f"it calls {function} in a way that no weights need")


def _build(target: Any, state: Any) -> None:
    # an ordered dictionary carries torch's own version numbers, which say nothing of the tensors
    if type(target) is not dict:
        raise Refused(f"it sets the state of a {type(target).__name__}")
