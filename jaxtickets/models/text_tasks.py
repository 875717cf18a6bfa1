"""Tasks of texts: fine-tuning a pretrained encoder, and guessing masked tokens."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxtickets.errors import CheckpointError
from jaxtickets.masks import Rules
from jaxtickets.messages.pytrees import leaf_paths
from jaxtickets.messages.quoting import shown
from jaxtickets.models.checkpoint import Checkpoint, read_checkpoint
from jaxtickets.models.checkpoint_names import build
from jaxtickets.models.masking import IGNORED
from jaxtickets.models.regressors import regression
from jaxtickets.models.tasks import LinenApply, classification
from jaxtickets.models.transformer import ENCODER_KERNELS, MaskedLM, TextClassifier
from jaxtickets.models.transformer_config import TransformerConfig
from jaxtickets.task import PyTree, Task


def fine_tuning(
    checkpoint: Checkpoint | str | Path,
    num_classes: int | None = 2,
    *,
    dtype: Any = jnp.float32,
    label_smoothing: float = 0.0,
    prunable: Rules = ENCODER_KERNELS,
    new_pooler: bool = False,
    name: str | None = None,
) -> Task:
    """The task of classifying texts (or of giving them a number) with a pretrained encoder.

    `init(key, x)` gives the pretrained weights and a head drawn from the key: kernels N(0,
    initial_scale^2), biases 0.

    Args:
      checkpoint: a `Checkpoint`, or where `read_checkpoint` finds one.
      num_classes: C; None for regression.
      dtype: computation dtype; parameters are float32.
      label_smoothing: as `classification`.
      prunable: path rules for what a mask may cover; by default the paper's: the encoder's kernels
        and BERT's pooler.
      new_pooler: draws a pooler as well, where BERT's checkpoint has none.
      name: what a run folder calls it.

    Returns:
      A `Task`; equal for checkpoints of equal content and name.

    Raises:
      CheckpointError: as `read_checkpoint`; or a BERT without a pooler.
      ValueError: as `classification` and `TextClassifier`; or another argument that cannot be.

    References:
      Devlin et al. 2019, arXiv:1810.04805, section 3.2.

    >>> import tempfile
    >>> from jaxtickets.models import Encoder, save_pretrained
    >>> small = {"width": 4, "heads": 1, "intermediate": 4, "positions": 4}
    >>> config = TransformerConfig(vocabulary=9, layers=1, **small)
    >>> x = {name: np.ones((1, 4), np.int32) for name in ("input_ids", "attention_mask")}
    >>> key = jax.random.key(0)
    >>> shapes = jax.eval_shape(lambda: Encoder(config).init(key, x, train=False)["params"])
    >>> params = {"encoder": jax.tree.map(lambda leaf: np.ones(leaf.shape), shapes)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     task = fine_tuning(save_pretrained(params, config, f"{folder}/tiny"), num_classes=3)
    >>> task.name, task.num_classes
    ('fine_tuning(tiny, 3)', 3)
    """
    smoothed = (
        isinstance(label_smoothing, int | float)
        and not isinstance(label_smoothing, bool)
        and 0 <= label_smoothing < 1
    )
    if not smoothed or (num_classes is None and label_smoothing):
        reason = "; a regression has no labels to smooth" if smoothed else ""
        raise ValueError(
            "fine_tuning: label_smoothing is a number in [0, 1); got"
            f" {shown(label_smoothing)}{reason}."
        )
    if not isinstance(new_pooler, bool):
        raise ValueError(f"fine_tuning: new_pooler is True or False; got {shown(new_pooler)}.")
    _check_name("fine_tuning", name)
    if not isinstance(checkpoint, Checkpoint | str | Path):
        raise ValueError(
            "fine_tuning: checkpoint is a Checkpoint, a folder, or a model's name on the hub; got"
            f" {shown(checkpoint)}."
        )
    TextClassifier(TransformerConfig(), num_classes, dtype)  # its errors before anything is read
    source = checkpoint if isinstance(checkpoint, Checkpoint) else read_checkpoint(checkpoint)
    if source.config.family == "bert" and not source.has_pooler and not new_pooler:
        raise CheckpointError(
            f"{source.name}: has no pooler, which BERT's head reads. To draw one with the head,"
            " pass new_pooler=True."
        )
    model = TextClassifier(source.config, num_classes, dtype)
    if name is None:
        name = f"fine_tuning({source.name}, {'regression' if num_classes is None else num_classes})"
    if num_classes is None:
        task = regression(model, prunable=prunable, name=name)
    else:
        task = classification(model, label_smoothing=label_smoothing, prunable=prunable, name=name)
    return dataclasses.replace(task, init=PretrainedInit(model, source, ("encoder",)))


def masked_language_modelling(
    start: TransformerConfig | Checkpoint,
    *,
    dtype: Any = jnp.float32,
    prunable: Rules = ENCODER_KERNELS,
    name: str | None = None,
) -> Task:
    """The task of guessing masked tokens.

    x is `{"input_ids", "attention_mask", "labels"}`, and if there are any `"token_type_ids"`, each
    [B, T]; labels are -100 where nothing is guessed. y is not looked at. A `Dataset` carries labels
    from the beginning, such as `x["labels"] = input_ids` as int32; `augment=MaskTokens(...)` puts
    the true ones in their place.

    The loss of an example is the sum of its guesses' cross-entropies, divided by the batch's mean
    number of guesses: its mean over a batch is the mean over the guesses, as in BERT. The
    prediction of an example, [B], is its guesses' mean log-probability.

    Args:
      start: sizes, for a network from scratch; or a pretrained one, whose head is drawn if it was
        not read.
      dtype: computation dtype; parameters are float32.
      prunable: path rules for what a mask may cover.
      name: what a run folder calls it.

    Returns:
      A `Task` without classes.

    Raises:
      ValueError: an argument that cannot be.

    References:
      Devlin et al. 2019, arXiv:1810.04805, section 3.1.

    >>> config = TransformerConfig(layers=2, width=128, heads=2, intermediate=512)
    >>> masked_language_modelling(config).name
    'masked_language_modelling(bert 2x128)'
    """
    if not isinstance(start, TransformerConfig | Checkpoint):
        raise ValueError(
            "masked_language_modelling: start is a TransformerConfig, or a pretrained network"
            f" (read_checkpoint(...)); got {shown(start)}."
        )
    _check_name("masked_language_modelling", name)
    config = start.config if isinstance(start, Checkpoint) else start
    model = MaskedLM(config, dtype)
    title = start.name if isinstance(start, Checkpoint) else str(config)
    source = start if isinstance(start, Checkpoint) else None
    parts = (
        ("encoder", "head")
        if source is not None and "norm" in source.params.get("head", {})
        else ("encoder",)
    )
    return Task(
        init=PretrainedInit(model, source, parts),
        apply=MaskedLMApply(model),
        loss=masked_cross_entropy,
        log_proba=mean_log_proba,
        prunable=prunable,
        name=f"masked_language_modelling({title})" if name is None else name,
        check=model.input_check,
    )


def _check_name(caller: str, name: Any) -> None:
    if name is not None and (not isinstance(name, str) or not name):
        raise ValueError(
            f"{caller}: name is what a run folder calls the task, or None; got {shown(name)}."
        )


@dataclasses.dataclass(frozen=True)
class PretrainedInit:
    """`Task.init` of a network that is pretrained in part; the rest is drawn.

    Traced, the pretrained weights are asked of the host when the program runs: as constants they
    would make the program as large as the network.

    Args:
      model: the network.
      checkpoint: the pretrained weights; None for none.
      parts: which of its parts are taken.
    """

    model: TextClassifier | MaskedLM
    checkpoint: Checkpoint | None
    parts: tuple[str, ...]

    def __call__(self, key: jax.Array, x: PyTree) -> tuple[PyTree, PyTree]:
        """Makes `(params, {})` for texts shaped like `x`."""
        shapes = _named(
            jax.eval_shape(lambda: self.model.init(jax.random.key(0), x, train=False)["params"])
        )
        pretrained = (
            {}
            if self.checkpoint is None
            else _named({part: self.checkpoint.params[part] for part in self.parts})
        )
        # RoBERTa's classifier does without a pooler
        pretrained = {path: array for path, array in pretrained.items() if path in shapes}
        drawn = _draw(self.model, tuple(path for path in shapes if path not in pretrained), key, x)
        pretrained_arrays = (
            _from_host(pretrained)
            if isinstance(key, Tracer)
            else jax.tree.map(jnp.array, pretrained)
        )
        return build({**pretrained_arrays, **drawn}), {}


def _from_host(arrays: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Arrays as a compiled program asks the host for them when it runs."""
    return jax.pure_callback(
        lambda: arrays,
        {path: jax.ShapeDtypeStruct(array.shape, array.dtype) for path, array in arrays.items()},
    )


def _named(tree: PyTree) -> dict[str, Any]:
    return dict(zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _draw(
    model: TextClassifier | MaskedLM, paths: tuple[str, ...], key: jax.Array, x: PyTree
) -> dict[str, jax.Array]:
    """Leaves of a fresh network; what is not asked for is not computed."""
    params = _named(model.init(key, x, train=False)["params"])
    return {path: params[path] for path in paths}


@dataclasses.dataclass(frozen=True)
class MaskedLMApply:
    """`Task.apply` of a masked language model.

    Outputs carry the labels, so that the loss needs nothing else.
    """

    model: MaskedLM

    def __call__(
        self,
        params: PyTree,
        model_state: PyTree,
        x: Mapping[str, jax.Array],
        train: bool,
        key: jax.Array | None = None,
    ) -> Any:
        """Gives `{"logits": [B, T, V], "labels": int32 [B, T]}`.

        Raises:
          ValueError: x without labels.
        """
        if "labels" not in x:
            raise ValueError(
                f"masked language modelling: x needs 'labels', {IGNORED} where nothing is guessed;"
                f" got {sorted(x)}."
            )
        logits, _ = LinenApply(self.model)(params, model_state, x, train, key)
        return {"logits": logits, "labels": jnp.asarray(x["labels"]).astype(jnp.int32)}, model_state


def _guesses(outputs: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """The sum of the log-probabilities of an example's labels, and how many it has.

    float32 [B] both.
    """
    guessed = outputs["labels"] != IGNORED
    logits = outputs["logits"].astype(jnp.float32)
    labels = jnp.where(guessed, outputs["labels"], 0)[..., None]
    log_proba = jnp.take_along_axis(logits, labels, -1)[..., 0] - jax.nn.logsumexp(logits, -1)
    return jnp.sum(jnp.where(guessed, log_proba, 0), -1), jnp.sum(guessed, -1, dtype=jnp.float32)


def masked_cross_entropy(outputs: Mapping[str, jax.Array], y: Any) -> jax.Array:
    """Cross-entropy of the guesses, float32 [B].

    Its mean is the mean over all guesses of the batch. 0 where there are none.
    """
    del y
    total, count = _guesses(outputs)
    return -total / jnp.maximum(jnp.mean(count), np.float32(1 / count.size))


def mean_log_proba(outputs: Mapping[str, jax.Array]) -> jax.Array:
    """Mean log-probability of each example's labels, float32 [B]; 0 without any."""
    total, count = _guesses(outputs)
    return total / jnp.maximum(count, 1)
