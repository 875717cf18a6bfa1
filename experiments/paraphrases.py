"""A small language that is made here, for a demo without a download. Not a script.

It gives text to pretrain on, and pairs of sentences that mean the same or do not. A word stands for a concept, and every concept has
two words. A sentence says who does what to whom. A paraphrase says the same, each word chosen anew; what is no paraphrase says
something else.
"""

from __future__ import annotations

import itertools

import numpy as np

import jaxtickets as jt

NOUNS, VERBS, ADJECTIVES, WORDS = 8, 4, 4, 2  # concepts of each kind, and words of each concept
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the")
PAD, _, CLS, SEP, MASK, THE = range(len(SPECIAL))
SIZE = len(SPECIAL) + (NOUNS + VERBS + ADJECTIVES) * WORDS
TOKENS = 17  # two sentences of seven words, and three special ones


def vocabulary() -> list[str]:
    """All tokens in the order of their numbers: special ones, then words of two syllables, concept by concept."""
    syllables = ["".join(pair) for pair in itertools.product("bdfgklmnprst", "aeiou")]
    numbers = (1151 * i % 3600 for i in range(SIZE - len(SPECIAL)))  # 1151 and 3600 have no common divisor: no word comes twice
    return [*SPECIAL, *(syllables[n // 60] + syllables[n % 60] for n in numbers)]


def pairs(examples: int, seed: int) -> jt.Dataset:
    """Pairs of sentences, half of them paraphrases: x as BERT takes it, y 1 where they mean the same.

    Args:
      examples: N.
      seed: of this split's generator.

    >>> words, data = vocabulary(), pairs(2, seed=0)
    >>> for text, same in zip(data.x["input_ids"], data.y):
    ...     print(data.class_names[same], "-", " ".join(words[token] for token in text))
    different - [CLS] the niti mebe bulu the tuna rira [SEP] the gegu rira kefo the nama gufe [SEP]
    same - [CLS] the gegu gufe kefo the paku molo [SEP] the gegu baba kefo the paku molo [SEP]
    """
    rng = np.random.default_rng(seed)
    same = np.arange(examples, dtype=np.int32) % 2
    ids = np.empty((examples, TOKENS), np.int32)
    for row, label in enumerate(same):
        meaning = _meaning(rng)
        other = meaning
        while not label and other == meaning:
            other = _meaning(rng)
        ids[row] = [CLS, *_sentence(rng, meaning), SEP, *_sentence(rng, other), SEP]
    second = np.broadcast_to(np.arange(TOKENS) > (TOKENS - 1) // 2, ids.shape)
    x = {"input_ids": ids, "token_type_ids": second.astype(np.uint8), "attention_mask": np.ones(ids.shape, bool)}
    return jt.Dataset(x, same, 2, name="made-up paraphrases", class_names=("different", "same"))


def corpus(examples: int, seed: int) -> jt.Dataset:
    """The same kind of text for masked-language modelling: nothing says which pairs are paraphrases."""
    made = pairs(examples, seed)
    hide = jt.models.MaskTokens(mask_token=MASK, vocabulary=SIZE, special=(PAD, CLS, SEP))
    x = {**made.x, "labels": made.x["input_ids"]}
    return jt.Dataset(x, np.zeros(examples, np.float32), None, name="made-up text", augment=hide)


def _meaning(rng: np.random.Generator) -> list[int]:
    """Concepts: who (quality, thing), does what, to whom (quality, thing)."""
    who, whom = rng.choice(NOUNS, 2, replace=False)
    verb = NOUNS + rng.integers(VERBS)
    quality, other = NOUNS + VERBS + rng.integers(ADJECTIVES, size=2)
    return [int(concept) for concept in (quality, who, verb, other, whom)]


def _sentence(rng: np.random.Generator, meaning: list[int]) -> list[int]:
    """Token ids of one way to say it."""
    quality, who, verb, other, whom = (len(SPECIAL) + concept * WORDS + int(rng.integers(WORDS)) for concept in meaning)
    return [THE, quality, who, verb, THE, other, whom]
