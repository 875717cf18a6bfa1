"""Arguments of what texts are trained with: wrong ones are named with what is allowed, before anything is read or traced."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxtickets as jt
from jaxtickets.data import DataError, synthetic_text
from jaxtickets.models import Encoder, MaskedLM, MaskTokens, TextClassifier, TransformerConfig

TINY = TransformerConfig(vocabulary=12, layers=1, width=8, heads=2, intermediate=12, positions=8)


def fine_tuning(**arguments):
    return lambda: jt.fine_tuning(**({"checkpoint": "./nowhere"} | arguments))


WRONG = [
    (fine_tuning(checkpoint=3), "fine_tuning: checkpoint is a Checkpoint, a folder, or a model's name on the hub; got 3"),
    (fine_tuning(num_classes=0), "num_classes is an integer of at least 1, or None for regression; got 0"),
    (fine_tuning(num_classes=-3), "num_classes is .*; got -3"),
    (fine_tuning(num_classes=2.0), "num_classes is .*; got 2.0"),
    (fine_tuning(num_classes=True), "num_classes is .*; got True"),
    (fine_tuning(dtype="float99"), "dtype is what is computed in, such as jnp.float32 or jnp.bfloat16; got 'float99'"),
    (fine_tuning(dtype=jnp.int32), "dtype is what is computed in"),
    (fine_tuning(dtype=None), "dtype is what is computed in"),
    (fine_tuning(label_smoothing=1.0), r"fine_tuning: label_smoothing is a number in \[0, 1\); got 1.0"),
    (fine_tuning(label_smoothing="x"), "label_smoothing is .*; got 'x'"),
    (fine_tuning(label_smoothing=float("nan")), "label_smoothing is .*; got nan"),
    (fine_tuning(label_smoothing=0.1, num_classes=None), "got 0.1; a regression has no labels to smooth"),
    (fine_tuning(new_pooler="yes"), "new_pooler is True or False; got 'yes'"),
    (fine_tuning(name=3), "fine_tuning: name is what a run folder calls the task, or None; got 3"),
    (fine_tuning(name=""), "name is"),
    (lambda: jt.masked_language_modelling("bert"), "masked_language_modelling: start is a TransformerConfig, or a pretrained network .*; got 'bert'"),
    (lambda: jt.masked_language_modelling(TINY, dtype=np.int8), "MaskedLM: dtype is"),
    (lambda: jt.masked_language_modelling(TINY, name=[]), r"name is .*; got \[\]"),
    (lambda: jt.regression(TextClassifier(TINY, None), name=3), "regression: name is .*; got 3"),
    (lambda: jt.regression(TextClassifier(TINY, 2)), "tells 2 classes apart"),
    (lambda: TextClassifier({"layers": 2}), r"TextClassifier: config is a TransformerConfig; got \{'layers': 2\}"),
    (lambda: TextClassifier(TINY, "2"), "num_classes is .*; got '2'"),
    (lambda: TextClassifier(TINY, 2, "int32"), "TextClassifier: dtype is .*; got 'int32'"),
    (lambda: MaskedLM(None), "MaskedLM: config is a TransformerConfig; got None"),
    (lambda: Encoder(TINY, with_pooler=1), "Encoder: with_pooler is True or False; got 1"),
    (lambda: Encoder("bert"), "Encoder: config is"),
    (lambda: TransformerConfig(layers=2.5), "layers is an integer from 1 to 1000; got 2.5"),
    (lambda: MaskTokens(3, 12.0), "MaskTokens: vocabulary is how many tokens there are, an integer of at least 1; got 12.0"),
    (lambda: MaskTokens(3, 0), "vocabulary is"),
    (lambda: MaskTokens(3.0, 12), r"tokens are integers from 0 to 11; got \[3.0\]"),
    (lambda: MaskTokens(3, 12, special=1), "special is a tuple of tokens; got 1"),
    (lambda: MaskTokens(3, 12, special="ab"), "special is a tuple of tokens; got 'ab'"),
    (lambda: MaskTokens(3, 12, share="x"), r"share must be in \(0, 1\), got 'x'"),
    (lambda: MaskTokens(3, 12, share=float("nan")), "share must be"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "words"), WRONG, ids=[words[:60] for _, words in WRONG])
def test_wrong_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: synthetic_text.paraphrases("test"),
            "split is 'train' or 'validation'; got 'test'",
        ),
        (lambda: synthetic_text.paraphrases(["train"]), r"got \['train'\]"),
        (
            lambda: synthetic_text.words(np.array([1, -1])),
            "ids are token numbers .*, integers from 0 to",
        ),
        (lambda: synthetic_text.words(np.array([10**6])), "ids are token numbers"),
        (lambda: synthetic_text.words(np.array([1.5])), "ids are token numbers"),
        (lambda: synthetic_text.words(np.ones((2, 2), int)), "ids are token numbers"),
    ],
)
def test_wrong_arguments_of_the_made_up_language(call, words):
    with pytest.raises(DataError, match=words):
        call()


def test_numbers_of_numpy_are_taken():
    config = TransformerConfig(
        layers=int(np.int64(2)), eps=np.float64(1e-7), dropout=np.float32(0.5).item()
    )
    assert type(config.eps) is float
    assert TransformerConfig.from_hf(config.to_hf()) == config
