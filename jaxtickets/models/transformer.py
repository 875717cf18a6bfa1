"""BERT and RoBERTa: the encoder, a classifier and a masked language model.

The functions are those of Hugging Face's torch models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxtickets.masks import Rules
from jaxtickets.messages.quoting import shown
from jaxtickets.models.activations import activation
from jaxtickets.models.layers import Dense
from jaxtickets.models.position_dropout import Words, dropout, key_words
from jaxtickets.models.text_inputs import CheckTexts
from jaxtickets.models.transformer_config import TransformerConfig

Dtype = Any

ENCODER_KERNELS: Rules = (
    (
        r"^encoder/(layer_\d+/(query|key|value|attention_output|intermediate|output)|pooler)/kernel$",
        True,
    ),
    (r".*", False),
)
"""What the Multi-Ticket paper prunes: six kernels a layer and the pooler's, no embeddings, norms,
biases or heads.
"""

_TAKEN = ("input_ids", "attention_mask", "token_type_ids", "labels")


def check_fields(module: nn.Module) -> None:
    """Raise `ValueError` unless a network's config is one and its dtype is floating."""
    kind, config, dtype = (
        type(module).__name__,
        getattr(module, "config", None),
        getattr(module, "dtype", None),
    )
    if not isinstance(config, TransformerConfig):
        raise ValueError(f"{kind}: config is a TransformerConfig; got {shown(config)}.")
    try:
        floating = dtype is not None and jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        floating = False
    if not floating:
        raise ValueError(
            f"{kind}: dtype is what is computed in, such as jnp.float32 or jnp.bfloat16; got"
            f" {shown(dtype)}."
        )


class Encoded(NamedTuple):
    """The outputs of an encoder for a batch.

    Args:
      layers: [B, T, W] each: the embeddings, then what every layer puts out.
      pooled: [B, W], made of the first token; None without a pooler.
    """

    layers: tuple[jax.Array, ...]
    pooled: jax.Array | None

    @property
    def last(self) -> jax.Array:
        """The output of the last layer, [B, T, W]."""
        return self.layers[-1]


class LayerNorm(nn.Module):
    """Normalises the last axis in float32; parameters `scale` and `bias` [W].

    References:
      Ba et al. 2016, arXiv:1607.06450, equation 3.
    """

    eps: float
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [..., W] to the same shape."""
        scale = self.param("scale", nn.initializers.ones_init(), (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros_init(), (x.shape[-1],))
        x = x.astype(jnp.float32)
        x = x - jnp.mean(x, -1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + self.eps)
        return (x * scale + bias).astype(self.dtype)


class Table(nn.Module):
    """A table of vectors by number; parameter `embedding` [rows, W].

    A number beyond the table gives NaN, which training reports.
    """

    rows: int
    width: int
    scale: float

    def setup(self):
        """Make the table here, so that heads can read it backwards."""
        self.embedding = self.param(
            "embedding", nn.initializers.normal(self.scale), (self.rows, self.width)
        )

    def __call__(self, ids: jax.Array) -> jax.Array:
        """Maps numbers [B, T] to [B, T, W]."""
        return jnp.take(self.embedding, ids, axis=0, mode="fill", fill_value=jnp.nan)


class Layer(nn.Module):
    """A transformer layer: self-attention and a feed-forward part.

    Each is added to what it read and then normalised.
    """

    config: TransformerConfig
    number: int
    dtype: Dtype

    @nn.compact
    def __call__(
        self, x: jax.Array, attended: jax.Array, words: Words | None, first_only: bool = False
    ) -> jax.Array:
        """Maps [B, T, W] to the same shape, or to what the first token becomes, [B, 1, W].

        `attended`, bool [B, T], says which tokens are seen.
        """
        c = self.config
        read, x = x, x[:, :1] if first_only else x
        first_site = 1 + 3 * self.number

        def norm(name: str) -> LayerNorm:
            return LayerNorm(c.eps, self.dtype, name=name)

        # [B, heads, T, D]: XLA's CPU backend multiplies that three times as fast. As many heads as
        # the params have: some may have been cut out.
        def by_head(name: str, x: jax.Array) -> jax.Array:
            every_head = _dense(c, c.width, name, self.dtype)(x)
            return every_head.reshape(*x.shape[:2], -1, c.width // c.heads).swapaxes(1, 2)

        query = by_head("query", x) * jnp.asarray((c.width // c.heads) ** -0.5, self.dtype)
        scores = jnp.matmul(
            query, by_head("key", read).swapaxes(2, 3), preferred_element_type=jnp.float32
        )
        weights = jax.nn.softmax(
            jnp.where(attended[:, None, None, :], scores, jnp.finfo(jnp.float32).min)
        )
        weights = dropout(
            weights.astype(self.dtype),
            c.attention_dropout,
            words,
            first_site,
            (c.positions**2, c.positions, 1),
        )
        y = (weights @ by_head("value", read)).swapaxes(1, 2).reshape(*x.shape[:2], -1)
        y = _dense(c, c.width, "attention_output", self.dtype)(y)
        x = norm("attention_norm")(x + dropout(y, c.dropout, words, first_site + 1, (c.width, 1)))
        y = activation(c.activation)(_dense(c, c.intermediate, "intermediate", self.dtype)(x))
        y = _dense(c, c.width, "output", self.dtype)(y)
        return norm("output_norm")(x + dropout(y, c.dropout, words, first_site + 2, (c.width, 1)))


class Encoder(nn.Module):
    """The encoder of a BERT: embeddings, layers and pooler.

    Args:
      config: its sizes.
      with_pooler: whether it has one.
      dtype: computation dtype; parameters, softmax and layer norms are float32.

    Differs:
      An attended padding token's row in the tables is trained like any other; torch leaves it as it
      is. For a classifier the last layer makes the first token only (`first_only`), a sixth of the
      work of six layers less, with the same outputs.
    """

    config: TransformerConfig
    with_pooler: bool = True
    dtype: Dtype = jnp.float32

    def __post_init__(self):
        check_fields(self)
        if not isinstance(self.with_pooler, bool):
            raise ValueError(
                f"Encoder: with_pooler is True or False; got {shown(self.with_pooler)}."
            )
        super().__post_init__()

    def setup(self):
        """Make the layers by name, and the table of words for heads that share it."""
        c = self.config
        self.word, self.position, self.token_type = (
            Table(n, c.width, c.initial_scale) for n in (c.vocabulary, c.positions, c.token_types)
        )
        self.norm = LayerNorm(c.eps, self.dtype)
        self.layer = [Layer(c, i, self.dtype) for i in range(c.layers)]
        if self.with_pooler:
            self.pooler = _dense(c, c.width, None, self.dtype)

    def __call__(
        self, x: Mapping[str, jax.Array], train: bool, first_only: bool = False
    ) -> Encoded:
        """Maps token ids and masks, integers [B, T], to `Encoded`.

        These are `{"input_ids", "attention_mask"}`, and if there are any `"token_type_ids"`.

        With `first_only` the last layer makes nothing but the first token, [B, 1, W]: all that a
        classifier reads of it.
        """
        c = self.config
        ids, attended, types = _texts(x, c)
        words = (
            key_words(self.make_rng("dropout"))
            if train and max(c.dropout, c.attention_dropout) > 0
            else None
        )
        y = self.word(ids) + self.token_type(types) + self.position(_positions(ids, c))
        y = dropout(self.norm(y), c.dropout, words, 0, (c.width, 1))
        layers = [y]
        for number, layer in enumerate(self.layer, 1):
            layers.append(layer(layers[-1], attended, words, first_only and number == c.layers))
        return Encoded(
            tuple(layers), jnp.tanh(self.pooler(layers[-1][:, 0])) if self.with_pooler else None
        )


class ClassifierHead(nn.Module):
    """The head of a text classifier: dropout and a dense layer on the pooled text (BERT's).

    RoBERTa's: the same on a dense layer of its own, on the first token.
    """

    config: TransformerConfig
    outputs: int
    dtype: Dtype

    @nn.compact
    def __call__(self, y: jax.Array, train: bool) -> jax.Array:
        """Maps [B, W] to float32 [B, outputs]."""
        c = self.config
        words = key_words(self.make_rng("dropout")) if train and c.head_dropout > 0 else None
        y = dropout(y, c.head_dropout, words, 0, (1,))
        if c.family == "roberta":
            y = dropout(
                jnp.tanh(_dense(c, c.width, "dense", self.dtype)(y)), c.head_dropout, words, 1, (1,)
            )
        return _dense(c, self.outputs, "classifier", jnp.float32)(y)


class TextClassifier(nn.Module):
    """BERT or RoBERTa that tells classes of texts apart, or gives a text a number.

    Takes `{"input_ids", "attention_mask"}`, and if there are any `"token_type_ids"`: each [B, T] of
    any integer dtype. In training, dropout does not depend on how far texts are padded (see
    `jaxtickets.models.position_dropout`).

    Args:
      config: the encoder.
      num_classes: C; None for regression.
      dtype: computation dtype; parameters, softmax, layer norms and logits are float32.

    Raises:
      ValueError: fewer than 1 class; when called, texts longer than the model's positions, or x of
        another form.

    >>> import jax, jax.numpy as jnp
    >>> model = TextClassifier(TransformerConfig())
    >>> names = ("input_ids", "attention_mask", "token_type_ids")
    >>> x = {name: jnp.zeros((1, 8), jnp.uint16) for name in names}
    >>> variables = jax.eval_shape(lambda key: model.init(key, x, train=False), jax.random.key(0))
    >>> sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    109483778

    References:
      Devlin et al. 2019, arXiv:1810.04805, section 3; Liu et al. 2019, arXiv:1907.11692. The
      functions are those of `BertForSequenceClassification` and `RobertaForSequenceClassification`
      in transformers 5.
    """

    config: TransformerConfig
    num_classes: int | None = 2
    dtype: Dtype = jnp.float32

    def __post_init__(self):
        classes = self.num_classes
        if classes is not None and (
            isinstance(classes, bool) or not isinstance(classes, int) or classes < 1
        ):
            raise ValueError(
                "TextClassifier: num_classes is an integer of at least 1, or None for regression;"
                f" got {shown(classes)}."
            )
        check_fields(self)
        super().__post_init__()

    def setup(self):
        """Make encoder and head: `encoder/...` and `head/...` in the params."""
        self.encoder = Encoder(self.config, self.config.family == "bert", self.dtype)
        self.head = ClassifierHead(
            self.config, 1 if self.num_classes is None else self.num_classes, self.dtype
        )

    def __call__(self, x: Mapping[str, jax.Array], train: bool) -> jax.Array:
        """Maps B texts to logits [B, C], float32; for regression to values [B]."""
        encoded = self.encoder(x, train, first_only=True)
        out = self.head(encoded.last[:, 0] if encoded.pooled is None else encoded.pooled, train)
        return out[:, 0] if self.num_classes is None else out

    @property
    def input_check(self) -> CheckTexts:
        """The `Task.check` of tasks with this network."""
        return CheckTexts(self.config.vocabulary)

    def dropout_rate(self) -> float:
        """The largest rate of dropout, by which alone training differs from evaluation.

        So that `MCDropout` may predict in training mode.
        """
        c = self.config
        return max(c.dropout, c.attention_dropout, c.head_dropout)


class MaskedLM(nn.Module):
    """BERT or RoBERTa that says which token stands at each place.

    The last layer is the table of words read backwards, or (`config.tied` is False) one of its own.

    Args:
      config: the encoder, which has no pooler here.
      dtype: computation dtype; parameters, softmax, layer norms and logits are float32.

    References:
      Devlin et al. 2019, arXiv:1810.04805, section 3.1. The function of `BertForMaskedLM` and
      `RobertaForMaskedLM`.
    """

    config: TransformerConfig
    dtype: Dtype = jnp.float32

    def __post_init__(self):
        check_fields(self)
        super().__post_init__()

    def setup(self):
        """Make encoder and head: `encoder/...` and `head/...` in the params."""
        self.encoder = Encoder(self.config, False, self.dtype)
        self.head = MaskedLMHead(self.config, self.dtype)

    def __call__(self, x: Mapping[str, jax.Array], train: bool) -> jax.Array:
        """Maps B texts of T tokens to logits [B, T, vocabulary], float32."""
        return self.head(self.encoder(x, train).last, self.encoder.word.embedding)

    @property
    def input_check(self) -> CheckTexts:
        """The `Task.check` of tasks with this network."""
        return CheckTexts(self.config.vocabulary)


class MaskedLMHead(nn.Module):
    """The head of a masked language model: a dense layer and the product with a table of words.

    Its activation and a layer norm stand between the two.

    RoBERTa's activation is GELU; the table is the embedding's or one of its own.
    """

    config: TransformerConfig
    dtype: Dtype

    @nn.compact
    def __call__(self, y: jax.Array, table: jax.Array) -> jax.Array:
        """Maps [B, T, W] and the table of words [V, W] to float32 [B, T, V]."""
        c = self.config
        y = activation(c.activation if c.family == "bert" else "gelu")(
            _dense(c, c.width, "dense", self.dtype)(y)
        )
        y = LayerNorm(c.eps, self.dtype, name="norm")(y)
        bias = self.param("bias", nn.initializers.zeros_init(), (c.vocabulary,))
        if not c.tied:
            table = self.param(
                "table", nn.initializers.normal(c.initial_scale), (c.vocabulary, c.width)
            )
        return (
            jnp.einsum(
                "btw,vw->btv", y, table.astype(self.dtype), preferred_element_type=jnp.float32
            )
            + bias
        )


def _dense(config: TransformerConfig, features: int, name: str | None, dtype: Dtype) -> Dense:
    return Dense(features, dtype, nn.initializers.normal(config.initial_scale), name=name)


def _texts(x: Any, config: TransformerConfig) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Token numbers, attended tokens (bool) and token types of a batch, checked."""
    needed = (
        "x is {'input_ids', 'attention_mask'}, and if there are any 'token_type_ids', each integers"
        " [batch, tokens]"
    )
    if (
        not isinstance(x, Mapping)
        or not {"input_ids", "attention_mask"} <= set(x)
        or not set(x) <= set(_TAKEN)
    ):
        got = sorted(x) if isinstance(x, Mapping) else f"a {type(x).__name__}"
        raise ValueError(f"{config}: {needed}; got {got}.")
    arrays = {name: jnp.asarray(value) for name, value in x.items() if name != "labels"}
    shapes = {name: array.shape for name, array in arrays.items()}
    shape = shapes["input_ids"]
    numbers = {
        name: jnp.issubdtype(a.dtype, jnp.integer) or (a.dtype == bool and name == "attention_mask")
        for name, a in arrays.items()
    }
    if len(shape) != 2 or set(shapes.values()) != {shape} or not all(numbers.values()):
        raise ValueError(
            f"{config}: {needed}; got"
            f" {', '.join(f'{n} {a.dtype}{list(a.shape)}' for n, a in arrays.items())}."
        )
    if shape[1] > config.max_length:
        raise ValueError(
            f"{config}: texts of {shape[1]} tokens do not fit into its {config.max_length}"
            " positions; cut them to that."
        )
    ids = arrays["input_ids"].astype(jnp.int32)
    types = (
        arrays["token_type_ids"].astype(jnp.int32)
        if "token_type_ids" in arrays
        else jnp.zeros_like(ids)
    )
    return ids, arrays["attention_mask"] != 0, types


def _positions(ids: jax.Array, config: TransformerConfig) -> jax.Array:
    """The row of each token in the table of positions.

    RoBERTa counts tokens that are not padding, from `padding + 1` on.
    """
    if config.family == "bert":
        return jnp.broadcast_to(jnp.arange(ids.shape[1])[None], ids.shape)
    is_token = (ids != config.padding).astype(jnp.int32)
    return jnp.cumsum(is_token, 1) * is_token + config.padding
