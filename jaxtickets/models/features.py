"""The outputs of a Linen network's layers, by name, in the order in which they are computed."""

from __future__ import annotations

import collections
import dataclasses
import re
from typing import Any

import jax
from flax import linen

from jaxtickets.masks import KERNELS, is_matrix
from jaxtickets.masks.packing import COLLECTION
from jaxtickets.models.block_products import packed_layers
from jaxtickets.models.heads import Heads
from jaxtickets.models.modes import in_mode, linen_mode

PyTree = Any
_KERNEL = KERNELS[0][0]


def features_of(model: Any) -> LinenFeatures | None:
    """`Task.features` of a model: of a Linen module with one prediction; None for others."""
    return (
        LinenFeatures(model)
        if isinstance(model, linen.Module) and not isinstance(model, Heads)
        else None
    )


@dataclasses.dataclass(frozen=True)
class LinenFeatures:
    """`Task.features` of a Linen module: what its layers with a kernel give.

    Before their activation.

    A kernel is what `jaxtickets.masks.KERNELS` takes for one: convolutions and dense layers have
    one; norms, embeddings and the blocks that are made of layers do not. A layer that is called
    twice is there twice.

    >>> import jax.numpy as jnp
    >>> from jaxtickets.models import LeNet
    >>> model, x = LeNet((2, 3, 4, 5)), jnp.zeros((1, 16, 16, 1))
    >>> params = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False)["params"])
    >>> jax.eval_shape(LinenFeatures(model), params, {}, x)["conv1"].shape
    (1, 12, 12, 2)
    """

    model: linen.Module

    def __call__(self, params: PyTree, model_state: PyTree, x: PyTree) -> dict[str, jax.Array]:
        """Runs the module in evaluation mode: `{layer: [B, ...]}`."""
        called: list[tuple[str, ...]] = []
        examples = len(jax.tree.leaves(x)[0])

        def is_layer(module: linen.Module, method: str) -> bool:
            module_params = module.variables.get("params", {})
            kernel = any(
                re.search(_KERNEL, name) and hasattr(leaf, "shape") and is_matrix(leaf)
                for name, leaf in module_params.items()
            )
            is_kernel_layer = kernel and method == "__call__"
            if is_kernel_layer:
                # names only: their order is lost in a dictionary, and outputs may belong to a
                # lifted trace
                called.append(module.path)
            return is_kernel_layer

        variables, mode = {"params": params, **model_state}, linen_mode(self.model, False)
        with packed_layers(COLLECTION in model_state):
            _, captured = in_mode(self.model, False).apply(
                variables, x, **mode, capture_intermediates=is_layer, mutable=["intermediates"]
            )
        outputs, times = {}, collections.Counter()
        for path in called:
            scope: Any = captured.get("intermediates", {})
            for name in path:
                scope = scope.get(name, {})
            values, times[path] = scope.get("__call__", ())[times[path] :], times[path] + 1
            if values and getattr(values[0], "ndim", 0) >= 2 and len(values[0]) == examples:
                name = "/".join(path) or type(self.model).__name__
                outputs[name if times[path] == 1 else f"{name} ({times[path]})"] = values[0]
        return outputs
