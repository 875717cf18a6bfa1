"""What a tokenizer says of itself is followed or refused; damaged ones are told as such."""

import numpy as np
import pytest

from jaxtickets.data import DataError, DataNotFoundError, glue
from jaxtickets.data.tokenizing import encoder

transformers = pytest.importorskip("transformers", reason="pip install 'jaxtickets[nlp]'")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdef"]
PAIR = (["a b", "c"], ["d", "e f"])


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n")
    return path


def bert(vocabulary, **settings):
    return transformers.BertTokenizer(vocab=str(vocabulary), **settings)


def test_token_types_are_none_where_the_model_takes_none(vocabulary, tmp_path):
    plain = bert(vocabulary)
    without = bert(vocabulary, model_input_names=["input_ids", "attention_mask"])
    assert "token_type_ids" not in without(*PAIR)
    ours, wanted = encoder(without).encode(*PAIR, 8), encoder(plain).encode(*PAIR, 8)
    assert wanted["token_type_ids"].any()
    assert not ours["token_type_ids"].any()
    np.testing.assert_array_equal(ours["input_ids"], wanted["input_ids"])
    assert encoder(without).digest(8) != encoder(plain).digest(8)
    without.save_pretrained(tmp_path / "saved")
    assert not encoder(tmp_path / "saved").encode(*PAIR, 8)["token_type_ids"].any()


def test_what_a_tokenizer_says_of_capitals_and_accents_is_followed(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*WORDS, "A", "É", "e", "é"]) + "\n")
    for settings in (
        {},
        {"do_lower_case": False},
        {"do_lower_case": True, "strip_accents": False},
        {"strip_accents": True},
    ):
        tool = transformers.BertTokenizer(vocab=str(path), **settings)
        for given in (tool, tool.save_pretrained(tmp_path / "b")[0].rsplit("/", 1)[0]):
            ours = encoder(given).encode(["A É", "é a"], None, 6)["input_ids"]
            np.testing.assert_array_equal(
                ours,
                tool(["A É", "é a"], padding="max_length", max_length=6)["input_ids"],
                err_msg=str(settings),
            )


def test_filling_up_on_the_left_is_refused(vocabulary):
    with pytest.raises(
        DataError, match=r"fills up on the left, .*set tokenizer.padding_side = 'right'"
    ):
        encoder(bert(vocabulary, padding_side="left"))


def test_a_vocabulary_of_a_cased_model_is_not_read_as_an_uncased_one(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*WORDS, "Tickets", "Win"]) + "\n")
    with pytest.raises(
        DataError,
        match=r"vocab.txt: 2 of its tokens have capitals \(Tickets, Win, ...\).*do_lower_case=False",
    ):
        encoder(path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_of_a_vocabulary(end, mark, vocabulary, tmp_path):
    other = tmp_path / "other.txt"
    other.write_bytes((mark + end.join(WORDS) + end).encode())
    assert encoder(other).digest(8) == encoder(vocabulary).digest(8)


DEEP = '{"x":' * 100_000 + "1" + "}" * 100_000
DAMAGED = {
    "deep": ("tokenizer.json", DEEP),
    "deep settings": ("tokenizer_config.json", DEEP),
    "cut": ("tokenizer.json", '{"version": "1.0", "model": {'),
    "a list": ("tokenizer.json", "[]"),
    "no model": ("tokenizer.json", '{"version": "1.0"}'),
    "a list of settings": ("tokenizer_config.json", "[1]"),
    "another model": ("tokenizer.json", '{"version": "1.0", "model": {"type": "Nothing"}}'),
    "no UTF-8": ("tokenizer.json", b"\xff\xfe"),
}


@pytest.mark.parametrize(("name", "content"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_files_are_told(name, content, vocabulary, tmp_path):
    folder = tmp_path / "a"
    bert(vocabulary).save_pretrained(folder)
    assert encoder(folder).pad_id == 0
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=r"tokenizer: .*a (cannot be loaded|is damaged)") as error:
        encoder(folder)
    assert len(str(error.value)) < 800


def test_files_far_too_large_are_not_read(vocabulary, tmp_path):
    folder = tmp_path / "a"
    bert(vocabulary).save_pretrained(folder)
    for path in (folder / "tokenizer.json", tmp_path / "big.txt"):
        with path.open("wb") as file:
            file.truncate(2**28 + 1)  # sparse: no block of it is written
    with pytest.raises(
        DataError,
        match=r"tokenizer.json: has 268,435,457 bytes; a tokenizer's files have at most 268,435,456",
    ):
        encoder(folder)
    with pytest.raises(DataError, match=r"big.txt: has more than 268,435,456 bytes"):
        encoder(tmp_path / "big.txt")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"task": None}, "task is one of cola, .*; got None"),
        ({"task": ["rte"]}, r"task is one of cola, .*; got \['rte'\]"),
        ({"tokenizer": None}, "tokenizer is a fast tokenizer of transformers, a folder, .*; got NoneType"),
        ({"tokenizer": 3}, "tokenizer is .*; got int"),
        ({"tokenizer": ""}, "tokenizer: "),
        ({"root": 3}, "root is a folder, or None.*; got 3"),
        ({"source": 3}, "source is one of auto, files, tfds, huggingface; got 3"),
        ({"source": ["files"]}, "source is one of"),
        ({"max_length": 2}, "max_length is a number of tokens, at least 5 with the special ones, .*; got 2"),
        ({"max_length": 16.0}, "max_length is .*; got 16.0"),
        ({"max_length": "16"}, "max_length is .*; got '16'"),
        ({"max_length": True}, "max_length is .*; got True"),
        ({"splits": 3}, "splits are some of train, validation; got 3"),
        ({"splits": "test"}, "splits are some of train, validation; got 'test'"),
        ({"splits": [["train"]]}, r"splits are some of train, validation; got \[\['train'\]\]"),
        ({"buckets": 8}, r"buckets are token lengths such as \(32, 64, 128\), or None; got 8"),
        ({"buckets": "8"}, "buckets are token lengths"),
        ({"buckets": (8.0, 16)}, r"buckets are token lengths.*; got \(8.0, 16\)"),
        ({"buckets": (16, 8)}, "buckets rise"),
        ({"buckets": (8,)}, "buckets end with T, the 16 tokens"),
        ({"cache": 3}, "cache is a folder, True or False; got 3"),
        ({"cache": None}, "cache is a folder, True or False; got None"),
        ({"download": "no"}, "download is True or False; got 'no'"),
    ],
)  # fmt: skip
def test_arguments_of_glue(changed, words, vocabulary, tmp_path):
    folder = tmp_path / "RTE"
    folder.mkdir()
    for split in ("train", "dev"):
        (folder / f"{split}.tsv").write_text(
            "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n"
        )
    good = {
        "task": "rte",
        "tokenizer": vocabulary,
        "root": folder,
        "max_length": 16,
        "cache": False,
        "download": False,
    }
    assert len(glue(**good)["train"]) == 1
    with pytest.raises(DataError, match=words):
        glue(**(good | changed))


def test_an_empty_folder_is_no_tokenizer(tmp_path):
    with pytest.raises(DataNotFoundError, match="cannot be loaded"):
        encoder(tmp_path)
