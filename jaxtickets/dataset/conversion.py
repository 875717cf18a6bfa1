"""What holds numbers as a NumPy array: NumPy, JAX, torch, pandas, polars, `__array__`.

Nothing is guessed: values that are missing, hidden by a mask, or no numbers are a `DataError` that
says what to type instead.
"""

from __future__ import annotations

import math
import numbers
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxtickets.errors import DataError

PyTree = Any

_KINDS = {
    "c": "complex numbers; take .real, or abs()",
    "U": "text; give numbers, such as numpy.unique(texts, return_inverse=True)[1] for labels",
    "S": "bytes; give numbers, such as numpy.unique(texts, return_inverse=True)[1] for labels",
    "T": "text; give numbers, such as numpy.unique(texts, return_inverse=True)[1] for labels",
    "M": "dates; give numbers, such as (x - x.min()) / numpy.timedelta64(1, 'D')",
    "m": "durations; give numbers, such as x / numpy.timedelta64(1, 's')",
    "V": "records of named fields; give one array of numbers, or a dictionary of them",
}


def host(value: Any, where: str) -> np.ndarray:
    """The numbers or booleans that `value` holds, in their own precision, on the host.

    Args:
      value: an array of NumPy, JAX or torch (on any device, with or without gradients), a table or
        column of pandas or polars, a number, or lists of numbers.
      where: what an error calls it.

    Returns:
      Integers, floats (bfloat16 included) or booleans in the machine's byte order; the very array
      where it is one.

    Raises:
      DataError: no numbers; missing or masked values; a sparse matrix; what cannot be read.

    >>> host([[1, 2], [3, 4]], "x").shape
    (2, 2)
    >>> host(np.ma.array([1.0, -999.0], mask=[False, True]), "x")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    jaxtickets.errors.DataError: x is a masked array that hides 1 of its 2 values, ... x.filled(0)
    """
    if value is None:
        raise DataError(f"{where} is None; an array of numbers is needed")
    if isinstance(value, np.ma.MaskedArray):
        hidden = int(np.ma.count_masked(value))
        if hidden:
            raise DataError(
                f"{where} is a masked array that hides {hidden} of its {value.size} values, and"
                " they would be used all the same. Drop those rows, or fill them: x.filled(0)"
            )
        value = value.data
    # of a dense torch tensor
    strided = str(getattr(value, "layout", "torch.strided")) == "torch.strided"
    dense = next(
        (name for name in ("toarray", "todense") if hasattr(value, name)),
        None if strided else "to_dense",
    )
    if dense and hasattr(value, dense):
        raise DataError(f"{where} is a sparse matrix ({type(value).__name__}); pass x.{dense}()")
    try:
        array = np.asarray(_from_torch(value) if hasattr(value, "detach") else value)
    except Exception as error:  # every library has its own kinds
        reason = str(error).strip().partition("\n")[0][:200]
        raise DataError(
            f"{where} cannot be made a numpy array of numbers ({type(value).__name__}: {reason})"
        ) from error
    if array.dtype.kind == "O":
        array = _from_objects(array, where)
    if array.dtype.kind not in "biuf" and not _is_float(array.dtype):
        kinds = _KINDS.get(array.dtype.kind, "no numbers")
        raise DataError(f"{where} is of {array.dtype}: {kinds}. Numbers or booleans are needed")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def narrow(array: np.ndarray, where: str) -> np.ndarray:
    """The array in at most 32 bits, as JAX computes.

    Raises:
      DataError: integers that 32 bits do not hold.
    """
    if _is_float(array.dtype):
        if array.dtype.itemsize <= 4:
            return array
        with np.errstate(over="ignore"):  # to infinity, which is found where infinity is
            return array.astype(np.float32)
    if array.dtype.itemsize < 8 and array.dtype != np.uint32:
        return array
    check_integers(array, where)
    return array.astype(np.int32)


def check_integers(array: np.ndarray, where: str) -> None:
    """Raise `DataError` where there are integers outside of 32 bits, which JAX would wrap."""
    if (
        array.dtype.kind in "iu"
        and (array.dtype.itemsize == 8 or array.dtype == np.uint32)
        and array.size
    ):
        low, high = int(array.min()), int(array.max())
        if low < -(2**31) or high >= 2**31:
            raise DataError(
                f"{where} has integers outside of 32 bits ({low} to {high}), which JAX would wrap"
            )


def as_arrays(tree: PyTree, name: str) -> PyTree:
    """A tree of what `host` reads, in its own precision. JAX's arrays stay where they are.

    Raises:
      DataError: as `host`.
    """

    def each(path: Any, leaf: Any) -> Any:
        return leaf if is_device_array(leaf) else host(leaf, name + jax.tree_util.keystr(path))

    return jax.tree_util.tree_map_with_path(each, tree)


def as_inputs(x: PyTree, name: str = "x") -> PyTree:
    """Arrays, or a tree of them, as a network takes them: `as_arrays` in at most 32 bits.

    Raises:
      DataError: as `host` and `narrow`.
    """

    def each(path: Any, leaf: Any) -> Any:
        return (
            leaf if isinstance(leaf, jax.Array) else narrow(leaf, name + jax.tree_util.keystr(path))
        )

    return jax.tree_util.tree_map_with_path(each, as_arrays(x, name))


def is_device_array(value: Any) -> bool:
    """Whether it is an array of JAX with numbers to compute with: no keys, nothing traced."""
    plain = (
        isinstance(value, jax.Array)
        and not isinstance(value, Tracer)
        and not jnp.issubdtype(value.dtype, jax.dtypes.extended)
    )
    return plain and value.dtype.kind != "c" and not value.is_deleted()


def _is_float(dtype: np.dtype) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.floating))


def _from_torch(tensor: Any) -> Any:
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":  # which NumPy does not know, but JAX does
        return tensor.contiguous().view(sys.modules["torch"].int16).numpy().view(jnp.bfloat16)
    return tensor.resolve_conj().resolve_neg().numpy()


def _from_objects(array: np.ndarray, where: str) -> np.ndarray:
    """Python's numbers out of an array of objects, such as a column with missing values."""
    flat = array.reshape(-1).tolist()
    missing = [
        i
        for i, one in enumerate(flat)
        if one is None or type(one).__name__ in ("NAType", "NaTType")
    ]
    if missing:
        first = [int(i) for i in np.unravel_index(missing[0], array.shape)] if array.ndim else []
        raise DataError(
            f"{where} has {len(missing)} missing values, the first at {first}. Drop those rows, or"
            " fill them: x.fillna(0)"
        )
    strange = next(
        (
            one
            for one in flat
            if not isinstance(one, numbers.Real | np.bool_) and getattr(one, "ndim", None) != 0
        ),
        None,
    )
    if strange is None and flat:
        try:
            found = np.array(flat).reshape(array.shape)
        except (ValueError, OverflowError, TypeError):
            found = array
        if found.dtype.kind in "biuf":
            return found
        if all(isinstance(one, numbers.Real) and math.isfinite(one) for one in flat):
            raise DataError(
                f"{where} is of object with numbers that no array of NumPy holds (such as"
                f" {max(flat, key=abs)!r:.40})"
            )
    what = (
        "text; give numbers, such as numpy.unique(texts, return_inverse=True)[1] for labels"
        if isinstance(strange, str)
        else ""
    )
    if hasattr(strange, "shape"):
        what = "arrays; where all have one shape, pass numpy.stack(list(x))"
    what = (
        what
        or f"such as {strange!r:.40}; numbers or booleans are needed"
        " (rows of unequal length give objects)"
    )
    raise DataError(f"{where} is of object: {what}")
