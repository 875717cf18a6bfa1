"""Random weights without compiling their generators, which takes longer than the networks do."""

import jax
import jax.numpy as jnp
import numpy as np


def weights(task, x, seed=0):
    draw = np.random.default_rng(seed)

    def value(path, a):
        name = jax.tree_util.keystr(path[-1:], simple=True)
        if name in (
            "fast_in",
            "fast_out",
            "scale",
            "var",
        ):  # around 1: at 1 exactly they would hide a mistake
            return jnp.asarray(draw.uniform(0.5, 1.5, a.shape), a.dtype)
        return jnp.asarray(
            draw.normal(size=a.shape) / np.sqrt(max(a.size / a.shape[-1], 1)), a.dtype
        )

    params, state = jax.eval_shape(task.init, jax.random.key(0), x)
    return jax.tree_util.tree_map_with_path(value, params), jax.tree_util.tree_map_with_path(
        value, state
    )


def images(size, channels=1, examples=4):
    return jnp.asarray(
        np.random.default_rng(1).normal(size=(examples, size, size, channels)), jnp.float32
    )
