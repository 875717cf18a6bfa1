"""Synthetic texts: a small made-up language, whose sentences mean the same or do not.

No download, no accelerator.

For demos and tests of what is done with texts: pretraining (`text`), then telling paraphrases
(`paraphrases`). It ranks no methods.

A word stands for a concept, and every concept has two words. A sentence says who does what to whom:
a thing of some quality does it to another thing of some quality. Texts are pairs of sentences. Half
of the pairs are paraphrases, which say the same, each word chosen anew; the sentences of the others
say something else, drawn independently.

Nothing here is a draw of the reader's: each data set is `numpy.random.default_rng(seed)`'s (PCG64)
of a fixed seed, `text` of 1, `paraphrases` of 2 ("train") and 3 ("validation"), and so the same
everywhere.
"""

from __future__ import annotations

import itertools

import numpy as np

from jaxtickets.dataset import Dataset
from jaxtickets.errors import DataError

NOUNS, VERBS, ADJECTIVES, SYNONYMS = 8, 4, 4, 2  # concepts of each kind, and words of each concept
CLASSES = ("different", "same")
TEXTS = 20_000
PAIRS = {"train": (2000, 2), "validation": (1000, 3)}  # examples, and the generator's seed
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the")
PAD, UNK, CLS, SEP, MASK, THE = range(len(_SPECIAL))
LENGTH = 17
"""Tokens of a text: two sentences of seven words, one [CLS] and two [SEP]. No text is shorter, so
none is filled up.
"""


def _vocabulary() -> tuple[str, ...]:
    syllables = ["".join(pair) for pair in itertools.product("bdfgklmnprst", "aeiou")]
    numbers = (
        1151 * i % 3600 for i in range((NOUNS + VERBS + ADJECTIVES) * SYNONYMS)
    )  # 1151 and 3600 have no common divisor: no word comes twice
    return (*_SPECIAL, *(syllables[n // 60] + syllables[n % 60] for n in numbers))


VOCABULARY = _vocabulary()
"""All tokens in the order of their numbers: special ones, "the", then words of two syllables,
concept by concept.
"""


def paraphrases(split: str = "train") -> Dataset:
    """Pairs of sentences of a made-up language (synthetic), half of them paraphrases.

    2,000 are for training, 1,000 for validation.

    Args:
      split: "train" or "validation".

    Returns:
      a `Dataset`: x as BERT takes it, a dictionary of input_ids int32 (numbers in `VOCABULARY`),
        token_type_ids uint8 and
      attention_mask bool, each [N, 17]; y int32 [N], 1 where both sentences mean the same, 0 and 1
      in turn.

    Raises:
      DataError: another `split`.

    >>> data = paraphrases("validation")
    >>> len(data), data.class_names
    (1000, ('different', 'same'))
    >>> for text, same in list(zip(data.x["input_ids"], data.y))[:2]:
    ...     print(data.class_names[same], "-", words(text))
    different - [CLS] the tuna baba dete the nama mebe [SEP] the niti molo dete the gore safi [SEP]
    same - [CLS] the tido sinu bulu the gegu duko [SEP] the tido molo bulu the gegu duko [SEP]
    """
    if not isinstance(split, str) or split not in PAIRS:
        raise DataError(f"paraphrases: split is 'train' or 'validation'; got {split!r}")
    x, y = _pairs(*PAIRS[split])
    return Dataset(x, y, len(CLASSES), name="made-up paraphrases", class_names=CLASSES)


def text() -> Dataset:
    """Text of the same language to pretrain on (synthetic): 20,000 pairs of sentences.

    Nothing says which are paraphrases.

    For masked-language modelling, take it with an `augment` that hides tokens:

        special = (synthetic_text.PAD, synthetic_text.CLS, synthetic_text.SEP)
        words = len(synthetic_text.VOCABULARY)
        hide = jt.models.MaskTokens(synthetic_text.MASK, words, special)
        dataclasses.replace(synthetic_text.text(), augment=hide)

    Returns:
      a `Dataset`: x as of `paraphrases`, and "labels", int32 [N, 17], the input_ids once more; y
        float32 [N], zeros that nobody
      looks at; `num_classes=None`.

    >>> data = text()
    >>> len(data), data.x["labels"].shape
    (20000, (20000, 17))
    """
    x, _ = _pairs(TEXTS, 1)
    return Dataset(
        {**x, "labels": x["input_ids"]}, np.zeros(TEXTS, np.float32), None, name="made-up text"
    )


def words(ids: np.ndarray) -> str:
    """The words of token numbers [T], with spaces between them.

    Raises:
      DataError: numbers that are no token's.

    >>> words(np.array([CLS, THE, 6, 7, SEP]))
    '[CLS] the baba gufe [SEP]'
    """
    ids = np.asarray(ids)
    if (
        ids.ndim != 1
        or not np.issubdtype(ids.dtype, np.integer)
        or (ids.size and not 0 <= ids.min() <= ids.max() < len(VOCABULARY))
    ):
        raise DataError(
            f"words: ids are token numbers [T], integers from 0 to {len(VOCABULARY) - 1}; got"
            f" {ids!r:.200}"
        )
    return " ".join(VOCABULARY[token] for token in ids)


def _pairs(examples: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Inputs and labels of so many pairs, different sentences and paraphrases in turn."""
    rng = np.random.default_rng(seed)
    same = np.arange(examples, dtype=np.int32) % 2
    ids = np.empty((examples, LENGTH), np.int32)
    for row, label in enumerate(same):
        meaning = _meaning(rng)
        other = meaning
        while not label and other == meaning:
            other = _meaning(rng)
        ids[row] = [CLS, *_sentence(rng, meaning), SEP, *_sentence(rng, other), SEP]
    second = np.broadcast_to(np.arange(LENGTH) > (LENGTH - 1) // 2, ids.shape)
    x = {
        "input_ids": ids,
        "token_type_ids": second.astype(np.uint8),
        "attention_mask": np.ones(ids.shape, bool),
    }
    return x, same


def _meaning(rng: np.random.Generator) -> list[int]:
    """The concepts of a random sentence: quality, who, does what, quality, to whom."""
    subject, recipient = rng.choice(NOUNS, 2, replace=False)
    verb = NOUNS + rng.integers(VERBS)
    quality, recipient_quality = NOUNS + VERBS + rng.integers(ADJECTIVES, size=2)
    return [int(concept) for concept in (quality, subject, verb, recipient_quality, recipient)]


def _sentence(rng: np.random.Generator, meaning: list[int]) -> list[int]:
    """Token numbers of one way to say a meaning."""
    quality, subject, verb, recipient_quality, recipient = (
        len(_SPECIAL) + concept * SYNONYMS + int(rng.integers(SYNONYMS)) for concept in meaning
    )
    return [THE, quality, subject, verb, THE, recipient_quality, recipient]
