"""SNIP, GraSP and SynFlow: what a network loses with a weight, seen before it is trained.

Each is registered as a score (see `jaxtickets.masks.scores`), under its own name in lower case.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxtickets.masks.scores import ScoreInputs, register

PyTree = Any


def _or_last(score: jax.Array) -> jax.Array:
    """A score in float32; -inf, and so last, where it is not finite."""
    return jnp.where(jnp.isfinite(score), score.astype(jnp.float32), -jnp.inf)


@register("snip", needs=("grads",))
def snip(inputs: ScoreInputs) -> PyTree:
    """SNIP's connection sensitivity, |w * dL/dw|: how much the loss feels a weight's removal.

    >>> params, grads = {"w": jnp.array([2.0, 1.0, 0.5])}, {"w": jnp.array([1.0, -3.0, 2.0])}
    >>> snip(ScoreInputs(params, grads=grads))["w"].tolist()
    [2.0, 3.0, 1.0]

    References:
      Lee et al., 2019, arXiv:1810.02340, equation 5 (whose normalisation changes no order).
    """
    return jax.tree.map(lambda p, g: _or_last(jnp.abs(p * g)), inputs.params, inputs.grads)


@register("grasp", needs=("loss",))
def grasp(inputs: ScoreInputs) -> PyTree:
    """GraSP's w * Hg: kept are the weights without which the gradient would shrink most.

    g is the gradient of the loss and H its Hessian, both over the surviving weights that a mask
    covers; over all where no mask is given.

    >>> loss = lambda params: 0.5 * jnp.sum(jnp.array([1.0, 2.0, 3.0]) * params["w"] ** 2)
    >>> grasp(ScoreInputs({"w": jnp.array([1.0, 1.0, -1.0])}, loss=loss))["w"].tolist()
    [1.0, 4.0, 9.0]

    References:
      Wang et al., 2020, arXiv:2002.07376, equation 8: weights with the largest -w * Hg are removed.

    Differs:
      The authors' code divides logits by a temperature of 200; do that in the loss if you want it.
    """
    assert inputs.loss is not None
    gradient_of = jax.grad(inputs.loss)
    g = gradient_of(inputs.params)
    if inputs.mask is not None:  # neither biases nor pruned weights move
        g = jax.tree.map(
            lambda m, g: jnp.where(m, g, 0) if m.ndim else jnp.zeros_like(g), inputs.mask, g
        )
    _, curved = jax.jvp(gradient_of, (inputs.params,), (g,))
    return jax.tree.map(lambda p, h: _or_last(p * h), inputs.params, curved)


@register("synflow", needs=("predict", "x"), rounds=100)
def synflow(inputs: ScoreInputs) -> PyTree:
    """SynFlow's |w| * dR/d|w|: how much flows through a weight, in a network of absolute values.

    R is the sum of the outputs for an input of ones, every weight replaced by its magnitude. Only
    shape and dtype of `x` are read, so that no data is needed. Recomputed on the way (100 rounds;
    see `jaxtickets.masks.pruning.prune_by_scores`) it never cuts a layer off before its time.

    A deep network's R exceeds float32. Then the input and the outputs' weights are scaled by powers
    of 2 that leave the order of the scores as it is (where biases are 0, as R is linear then).

    >>> def predict(params, x):
    ...     return x @ params["w1"] @ params["w2"]
    >>> params = {"w1": jnp.array([[1.0, -2.0]]), "w2": jnp.array([[3.0], [-1.0]])}
    >>> found = synflow(ScoreInputs(params, predict=predict, x=jnp.zeros((8, 1))))
    >>> found["w1"].tolist(), found["w2"].tolist()
    ([[3.0, 2.0]], [[3.0], [2.0]])

    References:
      Tanaka et al., 2020, arXiv:2006.05467, equation 2 and algorithm 1.

    Differs:
      The authors also take the absolute values of batch norm's running statistics. Here `predict`
      holds them as they are; those of a fresh network are 0 and 1.
    """
    predict = inputs.predict
    assert predict is not None
    magnitudes = jax.tree.map(jnp.abs, inputs.params)

    def total(params: PyTree, halvings: jax.Array) -> jax.Array:
        scale = jnp.exp2(-halvings.astype(jnp.float32))

        def ones(a: jax.Array) -> jax.Array:
            one = jnp.ones((1, *a.shape[1:]), a.dtype)
            return one * scale.astype(a.dtype) if jnp.issubdtype(a.dtype, jnp.floating) else one

        outputs = predict(params, jax.tree.map(ones, inputs.x))
        flows = [jnp.sum(o.astype(jnp.float32) * scale) for o in jax.tree.leaves(outputs)]
        return jnp.sum(jnp.stack(flows))

    halvings = lax.while_loop(
        lambda n: ~jnp.isfinite(total(magnitudes, n)) & (n < 120), lambda n: n + 30, jnp.int32(0)
    )
    flow = jax.grad(total)(magnitudes, halvings)
    return jax.tree.map(lambda p, g: _or_last(p * g), magnitudes, flow)
