"""Dense layers that run packed: the blocks that exist, gathered inputs, and one batched product.

`jaxtickets.models.layers.Dense` multiplies so where its kernel is packed
(`jaxtickets.masks.packing`); in the place of Linen's own `Dense` an interceptor does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from jax import lax

from jaxtickets.masks.packing import COLLECTION, KERNEL, TABLE, strips


def block_product(
    x: jax.Array, packed: jax.Array, stored: jax.Array, precision: Any = None
) -> jax.Array:
    """Multiplies [..., R r] by a packed kernel: [..., C c].

    Every strip reads the K blocks of inputs that it names: a gather, one product of all strips, and
    the sum of a column's strips. Both derivatives are such products too.

    Args:
      x: inputs.
      packed: the kernel, [S, K, r, c].
      stored: its table, bool [R, C].
      precision: as `jax.lax.dot_general` has it.
    """
    count, length, rows, columns = packed.shape
    height, width = stored.shape
    read, written, _ = strips(stored, count, length)
    blocks = x.reshape(-1, height, rows).swapaxes(0, 1)  # [R, B, r]
    inputs = blocks.at[read].get(mode="promise_in_bounds")  # [S, K, B, r]
    inputs = inputs.swapaxes(1, 2).reshape(count, -1, length * rows)
    kernel = packed.reshape(count, length * rows, columns)
    y = lax.dot_general(inputs, kernel, (((2,), (1,)), ((0,), (0,))), precision=precision)
    y = jax.ops.segment_sum(y, written, width, indices_are_sorted=True)  # [C, B, c]
    return y.swapaxes(0, 1).reshape(*x.shape[:-1], width * columns)


def packed_layers(packed: bool) -> contextlib.AbstractContextManager[None]:
    """While it is open, Linen's dense layers whose kernel is packed multiply by blocks."""
    return linen.intercept_methods(_multiply) if packed else contextlib.nullcontext()


def _multiply(
    method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], context: Any
) -> Any:
    """Interceptor. Subclasses may multiply in a way of their own, and are left alone."""
    layer = context.module
    if type(layer) is not linen.Dense or context.method_name != "__call__":
        return method(*args, **kwargs)
    if not layer.has_variable(COLLECTION, TABLE):
        return method(*args, **kwargs)
    stored = layer.get_variable(COLLECTION, TABLE)
    if layer.dot_general is not None or layer.dot_general_cls is not None:
        raise ValueError(f"{layer.name} has a dot_general of its own")
    given = args[0] if args else kwargs["inputs"]
    kernel = layer.get_variable("params", KERNEL)
    bias = layer.get_variable("params", "bias") if layer.use_bias else None
    x, kernel, bias = layer.promote_dtype(jnp.asarray(given), kernel, bias, dtype=layer.dtype)
    assert x is not None
    assert kernel is not None
    y = block_product(x, kernel, stored, layer.precision)
    return y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + (-1,))
