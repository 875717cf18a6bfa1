"""What to keep and what to grow: a score for every weight. The largest win.

A score is known by its name. Ours are "magnitude", "gradient", "random", and those of
`jaxtickets.masks.saliency`: "snip", "grasp", "synflow". Another one is one function:

    @jaxtickets.scores.register("movement", needs=("grads",))
    def movement(inputs):
        return jax.tree.map(lambda p, g: -p * g, inputs.params, inputs.grads)

and then `prune_grow(..., growth="movement")`, or whatever else takes a score.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets.errors import MaskError
from jaxtickets.messages import checks

check = checks.Checks(MaskError, arrays=True)

PyTree = Any
OF_A_BATCH = frozenset({"grads", "loss", "predict", "x"})


class ScoreInputs(NamedTuple):
    """What a score may look at, of one network. What nobody gave is None.

    Args:
      params: the weights, 0 where pruned.
      mask: the present mask.
      grads: gradient of the mean loss of a batch with respect to *all* weights, the pruned ones
        among them.
      key: a random key.
      loss: params to the mean loss of the same batch, a scalar; may be differentiated twice.
      predict: `(params, x)` to the network's outputs (logits, not probabilities) in evaluation
        mode.
      x: the batch's inputs.
    """

    params: PyTree
    mask: PyTree | None = None
    grads: PyTree | None = None
    key: jax.Array | None = None
    loss: Callable[[PyTree], jax.Array] | None = None
    predict: Callable[[PyTree, PyTree], PyTree] | None = None
    x: PyTree | None = None


@dataclasses.dataclass(frozen=True)
class Score:
    """A named score.

    Args:
      name: what plans and transforms call it.
      function: `ScoreInputs` to a tree like the params, float32 or uint32. The largest are kept or
        grown; NaN ranks last.
      needs: which fields of `ScoreInputs` it reads besides `params`.
      rounds: in how many steps a pruning goes to its sparsity, the score being computed anew before
        each, unless the user says another number.
    """

    name: str
    function: Callable[[ScoreInputs], PyTree]
    needs: frozenset[str] = frozenset()
    rounds: int = 1

    def __call__(self, inputs: ScoreInputs) -> PyTree:
        """The scores of a network, a tree like its params.

        Raises:
          MaskError: something that the score needs is None.
        """
        missing = sorted(name for name in self.needs if getattr(inputs, name) is None)
        if missing:
            raise MaskError(f"the score {self.name!r} needs {', '.join(missing)} in its inputs.")
        return self.function(inputs)

    @property
    def needs_batch(self) -> bool:
        """Whether it looks at data: examples, or a gradient or loss of some."""
        return bool(self.needs & OF_A_BATCH)


_REGISTERED: dict[str, Score] = {}
_OURS: set[str] = set()


def register(
    name: str, needs: Iterable[str] = (), rounds: int = 1
) -> Callable[[Callable[[ScoreInputs], PyTree]], Callable[[ScoreInputs], PyTree]]:
    """Makes a function of `ScoreInputs` a score that is known by `name`; a decorator.

    Args:
      name: may be registered again (as a notebook's cell that runs twice does), but for ours.
      needs: see `Score`.
      rounds: see `Score`.

    Raises:
      MaskError: a name that is no text or is one of ours; a need that is no field of `ScoreInputs`.

    >>> @register("negative magnitude")
    ... def negative_magnitude(inputs):
    ...     return jax.tree.map(lambda p: -jnp.abs(p), inputs.params)
    >>> get("negative magnitude")(ScoreInputs({"w": jnp.array([1.0, -2.0])}))["w"].tolist()
    [-1.0, -2.0]
    """
    if not (isinstance(name, str) and name):
        raise MaskError(f"a score's name is a text; got {checks.shown(name)}.")
    if name in _OURS:
        raise MaskError(f"{name!r} is one of this library's scores; take another name.")
    wanted = frozenset([needs] if isinstance(needs, str) else needs)
    known = ScoreInputs._fields[1:]
    if not wanted <= set(known):
        unknown = ", ".join(sorted(wanted - set(known)))
        raise MaskError(f"needs are among {', '.join(known)}; got {unknown}.")
    check.integer("rounds", rounds, "how often the score is computed on the way, ", least=1)

    def added(function: Callable[[ScoreInputs], PyTree]) -> Callable[[ScoreInputs], PyTree]:
        if not callable(function):
            raise MaskError(f"a score is a function; got {checks.shown(function)}.")
        _REGISTERED[name] = Score(name, function, wanted, rounds)
        if function.__module__.startswith("jaxtickets."):
            _OURS.add(name)
        return function

    return added


def names() -> tuple[str, ...]:
    """The names of all scores."""
    return tuple(sorted(_REGISTERED))


def get(score: str | Score, argument: str = "a score") -> Score:
    """The score of that name; a `Score` is handed back. Errors speak of the `argument`.

    Raises:
      MaskError: there is none of that name.
    """
    if isinstance(score, Score):
        return score
    if not isinstance(score, str) or score not in _REGISTERED:
        hint = " Name a function by @jaxtickets.scores.register." if callable(score) else ""
        raise MaskError(
            f"{argument} is one of {', '.join(names())}; got {checks.shown(score)}.{hint}"
        )
    return _REGISTERED[score]


def magnitude(params: PyTree) -> PyTree:
    """|w| in float32: what to keep, in magnitude pruning, RigL and SET.

    A weight that is not finite ranks last: its score is -1.
    """
    return jax.tree.map(_finite_size, params)


def gradient(grads: PyTree) -> PyTree:
    """|dL/dw| in float32: what RigL grows.

    A gradient that is not finite says nothing and ranks last: its score is -1. The gradient must be
    averaged over devices and accumulation steps *before* it comes here: the mean of absolute values
    is not the absolute value of the mean.

    >>> gradient(jnp.array([jnp.nan, -2.0, 0.0, jnp.inf])).tolist()
    [-1.0, 2.0, 0.0, -1.0]
    """
    return jax.tree.map(_finite_size, grads)


def _finite_size(a: jax.Array) -> jax.Array:
    # A number and not NaN, or `jax_debug_nans` would stop here.
    return jnp.where(jnp.isfinite(a), jnp.abs(a).astype(jnp.float32), jnp.float32(-1))


def random(key: jax.Array, params: PyTree) -> PyTree:
    """uint32 random bits: what SET grows. Each leaf has its own stream, its key folded in."""
    check.key("key", key)
    leaves, tree = jax.tree.flatten(params)
    draws = [
        jax.random.bits(jax.random.fold_in(key, i), leaf.shape, jnp.uint32)
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(tree, draws)


@register("magnitude")
def _magnitude(inputs: ScoreInputs) -> PyTree:
    return magnitude(inputs.params)


@register("gradient", needs=("grads",))
def _gradient(inputs: ScoreInputs) -> PyTree:
    return gradient(inputs.grads)


@register("random", needs=("key",))
def _random(inputs: ScoreInputs) -> PyTree:
    assert inputs.key is not None
    return random(inputs.key, inputs.params)
