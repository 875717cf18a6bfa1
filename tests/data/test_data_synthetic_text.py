"""The made-up language: its sizes, its bytes, and that a paraphrase is one."""

import numpy as np
import pytest

import jaxtickets as jt
from jaxtickets.data import paraphrases, synthetic_text

SPLITS = ("train", "validation")


def concepts(ids):
    """What a sentence says: [N, 5], its words without the articles, synonyms as one."""
    return (
        ids[:, [1, 2, 3, 5, 6]] - synthetic_text.VOCABULARY.index("the") - 1
    ) // synthetic_text.SYNONYMS


def halves(data):
    ids = data.x["input_ids"]
    return ids[:, 1:8], ids[:, 9:16]


@pytest.mark.parametrize(("split", "examples"), [("train", 2000), ("validation", 1000)])
def test_pairs_are_as_bert_takes_them(split, examples):
    data = paraphrases(split)
    ids, types, attended = (
        data.x[name] for name in ("input_ids", "token_type_ids", "attention_mask")
    )
    assert (ids.shape, ids.dtype, types.dtype, attended.dtype) == (
        (examples, synthetic_text.LENGTH),
        np.int32,
        np.uint8,
        bool,
    )
    assert data.y.dtype == np.int32
    assert np.bincount(data.y).tolist() == [examples // 2] * 2
    words = np.array(synthetic_text.VOCABULARY)[ids]
    assert set(words[:, 0]) == {"[CLS]"}
    assert set(words[:, [8, 16]].ravel()) == {"[SEP]"}
    assert set(words[:, [1, 5, 9, 13]].ravel()) == {"the"}
    assert attended.all()
    assert (types == [0] * 9 + [1] * 8).all()


@pytest.mark.parametrize("split", SPLITS)
def test_the_same_is_said_where_the_label_says_so(split):
    data = paraphrases(split)
    first, second = (concepts(half) for half in halves(data))
    np.testing.assert_array_equal((first == second).all(1), data.y == 1)
    kinds = np.digitize(
        np.concatenate([first, second]),
        [synthetic_text.NOUNS, synthetic_text.NOUNS + synthetic_text.VERBS],
    )
    assert (kinds == [2, 0, 1, 2, 0]).all()  # quality, thing, deed, quality, thing
    assert (first[:, 1] != first[:, 4]).all()  # nobody does it to itself


def test_words_do_not_tell_paraphrases():
    """Each word is drawn anew: in a paraphrase one in two is repeated, 5 N / 2 +- 6 deviations of a fair coin."""
    data = paraphrases()
    first, second = (half[data.y == 1][:, [1, 2, 3, 5, 6]] for half in halves(data))
    repeated, draws = (first == second).sum(), first.size
    assert abs(repeated - draws / 2) < 6 * np.sqrt(draws) / 2


def test_vocabulary():
    words = synthetic_text.VOCABULARY
    assert len(set(words)) == len(words) == 38
    numbers = (
        synthetic_text.PAD,
        synthetic_text.UNK,
        synthetic_text.CLS,
        synthetic_text.SEP,
        synthetic_text.MASK,
    )
    assert [words[n] for n in numbers] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    used = np.unique(synthetic_text.text().x["input_ids"])
    assert set(used) == set(range(len(words))) - {
        synthetic_text.PAD,
        synthetic_text.UNK,
        synthetic_text.MASK,
    }


def test_they_are_the_same_everywhere():
    """Bytes, as they were when first made; and what is trained on is not what is scored on."""
    train, validation, text = paraphrases("train"), paraphrases("validation"), synthetic_text.text()
    assert (train.fingerprint(), validation.fingerprint()) == (
        "ac08009a062855e8",
        "ef5e97eafab61925",
    )
    assert text.fingerprint() == "311a24a76b9672a7"
    assert len(text) == 20_000
    np.testing.assert_array_equal(text.x["labels"], text.x["input_ids"])
    seen = {row.tobytes() for row in train.x["input_ids"]}
    assert sum(row.tobytes() in seen for row in validation.x["input_ids"]) == 0


def test_another_split():
    with pytest.raises(jt.DataError, match="split is 'train' or 'validation'; got 'test'"):
        paraphrases("test")
