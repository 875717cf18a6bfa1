"""Token ids against transformers' own call, the cache of them, and buckets."""

import os
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from others import others

from jaxtickets.data import DataError, DataNotFoundError, from_arrays, glue
from jaxtickets.data.glue_files import read_tsv
from jaxtickets.data.glue_tasks import glue_task
from jaxtickets.data.token_cache import cached_tokens, token_key
from jaxtickets.data.tokenizing import encoder
from jaxtickets.dataset import Dataset
from jaxtickets.dataset.buckets import lengths, trim

transformers = others("transformers")

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *["a", "b", "c", "d", "e", "f", "g", "h", "cafe", "##s", "##ing", ",", ".", '"', "'"],
]
LEAVES = ("input_ids", "token_type_ids", "attention_mask")


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n")
    return path


def some_texts(count=60, longest=30):
    rng = np.random.default_rng(0)
    words = ["a", "B", "cs", "d.", "Café", "zzz", "fing", "[SEP]", "'g", "你"]
    return [" ".join(rng.choice(words, rng.integers(0, longest))) for _ in range(count)], [
        " ".join(rng.choice(words, rng.integers(0, longest))) for _ in range(count)
    ]


def roberta():
    """A byte-level tokenizer with RoBERTa's template: <s> a </s></s> b </s>, padded with 1, all token types 0."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {
        token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters])
    }
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
    )


@pytest.mark.parametrize("kind", ["bert", "roberta", "left truncation", "split special tokens"])
@pytest.mark.parametrize("max_length", [5, 16, 128])
@pytest.mark.parametrize("pair", [False, True])
def test_ids_are_those_of_the_tokenizer_itself(vocabulary, kind, max_length, pair):
    tool = roberta() if kind == "roberta" else transformers.BertTokenizer(vocab=str(vocabulary))
    max_length = max(max_length, 6 if kind == "roberta" else 5)
    if kind == "left truncation":
        tool.truncation_side = "left"
    if kind == "split special tokens":
        tool.split_special_tokens = True
    first, second = some_texts()
    ours = encoder(tool).encode(first, second if pair else None, max_length)
    theirs = tool(
        first,
        second if pair else None,
        padding="max_length",
        truncation=True,
        max_length=max_length,
        return_token_type_ids=True,
    )
    for leaf in LEAVES:
        np.testing.assert_array_equal(ours[leaf], theirs[leaf])
    again = encoder(tool)  # after its own call has left truncation and padding behind
    assert again.digest(16) == encoder(tool).digest(16)
    np.testing.assert_array_equal(
        again.encode(first, second, 128)["input_ids"],
        encoder(tool).encode(first, second, 128)["input_ids"],
    )


def test_a_tokenizer_is_not_changed(vocabulary):
    tool = transformers.BertTokenizer(vocab=str(vocabulary))
    before = tool.backend_tokenizer.to_str()
    encoder(tool).encode(*some_texts(), 16)
    assert tool.backend_tokenizer.to_str() == before


def test_all_ways_to_name_a_tokenizer(tmp_path, vocabulary):
    tool = transformers.BertTokenizer(vocab=str(vocabulary))
    tool.save_pretrained(tmp_path / "saved")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "vocab.txt").write_bytes(vocabulary.read_bytes().replace(b"\n", b"\r\n"))
    wanted = encoder(tool).encode(*some_texts(), 32)
    for name in (vocabulary, str(vocabulary), tmp_path / "bare", tmp_path / "saved"):
        found = encoder(name).encode(*some_texts(), 32)
        for leaf in LEAVES:
            np.testing.assert_array_equal(found[leaf], wanted[leaf])
    assert encoder(vocabulary).digest(32) == encoder(tool).digest(32) != encoder(tool).digest(64)


def test_wrong_tokenizers(tmp_path, vocabulary):
    short = tmp_path / "short.txt"
    short.write_text("\n".join(WORDS[1:]))
    twice = tmp_path / "twice.txt"
    twice.write_text("\n".join([*WORDS, "a"]))
    bytes_ = tmp_path / "bytes.txt"
    bytes_.write_bytes(b"\xff\xfe")
    unpadded = transformers.PreTrainedTokenizerFast(tokenizer_object=roberta().backend_tokenizer)
    bounded = transformers.BertTokenizer(vocab=str(vocabulary), model_max_length=64)
    (tmp_path / "nothing").mkdir()
    for call, error, message in (
        (lambda: encoder(tmp_path / "absent" / "vocab.txt"), DataNotFoundError, "is not there"),
        (lambda: encoder(tmp_path / "nothing"), DataNotFoundError, "cannot be loaded"),
        (lambda: encoder(short), DataError, r"lacks \[PAD\]; it is not a vocab.txt of BERT"),
        (lambda: encoder(twice), DataError, "1 tokens stand in it twice"),
        (lambda: encoder(bytes_), DataError, "cannot be read as a vocabulary"),
        (lambda: encoder(len), DataError, "got builtin_function_or_method"),
        (lambda: encoder(unpadded), DataError, "has no padding token"),
        (lambda: encoder(bounded).encode(["a"], None, 65), DataError, "at most 64.*; got 65"),
        (
            lambda: encoder(vocabulary).encode(["a"], ["b"], 4),
            DataError,
            "at least 5 with the special ones.*; got 4",
        ),
        (lambda: encoder(vocabulary).encode(["a"], None, 16.0), DataError, "got 16.0"),
    ):
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("tokenizer.json", "[" * 100_000, "is damaged, or is none: it is nested too deeply"),
        (
            "tokenizer_config.json",
            '{"a":' * 100_000,
            "is damaged, or is none: it is nested too deeply",
        ),
        (
            "special_tokens_map.json",
            "[" * 100_000,
            "is damaged, or is none: it is nested too deeply",
        ),
        ("tokenizer_config.json", "[]", "is damaged, or is none: AttributeError"),
        ("tokenizer.json", "null", "is damaged"),
        (
            "tokenizer_config.json",
            '{"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "model_max_length": "x"}',
            "its settings are damaged",
        ),
        (
            "tokenizer_config.json",
            '{"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "model_max_length": NaN}',
            "its settings are damaged",
        ),
    ],
)
def test_damaged_tokenizers_are_told(tmp_path, vocabulary, file, text, words):
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=encoder_backend(vocabulary), pad_token="[PAD]"
    ).save_pretrained(tmp_path)
    assert encoder(tmp_path).pad_id == 0
    (tmp_path / file).write_text(text)
    with pytest.raises(DataError, match=words) as error:
        encoder(tmp_path)
    assert len(str(error.value)) < 1000


def encoder_backend(vocabulary):
    from tokenizers import Tokenizer

    return Tokenizer.from_str(encoder(vocabulary).description)


def test_without_transformers_it_says_what_to_install(vocabulary, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxtickets\[nlp\]'"):
        encoder(vocabulary)


@pytest.fixture
def rte(tmp_path):
    folder = tmp_path / "glue_data" / "RTE"
    folder.mkdir(parents=True)
    first, second = some_texts()
    rows = [
        "index\tsentence1\tsentence2\tlabel",
        *(f"{i}\t{a}\t{b}\tentailment" for i, (a, b) in enumerate(zip(first, second, strict=True))),
    ]
    for name in ("train.tsv", "dev.tsv"):
        (folder / name).write_text("\n".join(rows if name == "train.tsv" else rows[:10]))
    return tmp_path


def files(cache):
    return sorted((cache / "tokens").iterdir())


def test_tokens_are_kept_and_found_again(alone, rte, vocabulary, monkeypatch):
    cache = rte / "cache"
    first = glue("rte", vocabulary, rte, max_length=32, cache=cache)
    assert [path.suffix for path in files(cache)] == [".safetensors"] * 2
    calls = []
    monkeypatch.setattr(
        "jaxtickets.data.tokenizing.Encoder.encode",
        lambda self, *texts: calls.append(len(texts[0])),
    )
    again = glue("rte", vocabulary, rte, max_length=32, cache=cache)
    assert calls == [0]  # the check of max_length; no text is tokenised
    for split in first:
        assert first[split].fingerprint() == again[split].fingerprint()
        assert [leaf.dtype for leaf in jax.tree.leaves(again[split].x)] == [
            bool,
            np.int32,
            np.uint8,
        ]


def test_without_a_cache_nothing_is_written_and_by_default_it_is_in_the_home(
    alone, rte, vocabulary
):
    glue("rte", vocabulary, rte, max_length=32, cache=False)
    assert not list(alone.rglob("*"))
    glue("rte", vocabulary, rte, max_length=32)
    assert len(files(alone / ".cache" / "jaxtickets")) == 2


def test_the_key_is_of_everything_that_ids_depend_on(vocabulary):
    settings = encoder(vocabulary).digest(32)
    texts = {
        "as it is": (["ab", "c"], ["d", "e"], settings),
        "text": (["ab", "d"], ["d", "e"], settings),
        "ends of texts": (["a", "bc"], ["d", "e"], settings),
        "order": (["c", "ab"], ["e", "d"], settings),
        "which is first": (["d", "e"], ["ab", "c"], settings),
        "single": (["ab", "c", "d", "e"], None, settings),
        "pairs with nothing": (["ab", "c"], ["", ""], settings),
        "nothing after": (["ab", "c"], None, settings),
        "length": (["ab", "c"], ["d", "e"], encoder(vocabulary).digest(33)),
        "tokenizer": (
            ["ab", "c"],
            ["d", "e"],
            encoder(transformers.BertTokenizer(vocab=str(vocabulary), do_lower_case=False)).digest(
                32
            ),
        ),
    }
    assert len({token_key(*each) for each in texts.values()}) == len(texts)
    assert token_key(*texts["as it is"]) == token_key(["ab", "c"], ["d", "e"], settings)


def damages(raw):
    """A file of tokens, damaged in many ways."""
    yield "empty", b""
    yield "short", raw[:-1]
    yield "half", raw[: len(raw) // 2]
    yield "flipped", raw[:-5] + bytes([raw[-5] ^ 1]) + raw[-4:]
    yield "no safetensors", b"\x80\x04N." * 100
    yield "huge header", b"\xff" * 8 + raw[8:]
    yield "shape", raw.replace(b"[60,32]", b"[32,60]")
    yield "another name", raw.replace(b'"input_ids"', b'"input_idz"')
    yield "no digest", raw.replace(b'"sha256"', b'"sha255"')
    yield "another dtype", raw.replace(b'"I32"', b'"F32"')


def test_a_damaged_file_is_remade_with_a_warning(alone, rte, vocabulary):
    cache = rte / "cache"
    settings = {"max_length": 32, "cache": cache, "splits": ("train",)}
    wanted = glue("rte", vocabulary, rte, **settings)["train"].fingerprint()
    (path,) = files(cache)
    raw = path.read_bytes()
    for kind, damaged in damages(raw):
        assert damaged != raw, kind
        path.write_bytes(damaged)
        with pytest.warns(UserWarning, match=f"{path.name}: damaged.*tokenised again"):
            found = glue("rte", vocabulary, rte, **settings)["train"]
        assert found.fingerprint() == wanted, kind
        assert path.read_bytes() == raw, kind
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        glue("rte", vocabulary, rte, **settings)


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    tokens = {
        "input_ids": np.zeros((2, 3), np.int32),
        "token_type_ids": np.zeros((2, 3), np.uint8),
        "attention_mask": np.ones((2, 3), bool),
    }

    def refuse(*names):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.warns(UserWarning, match="cannot be kept there: no space left"):
        assert cached_tokens(tmp_path / "tokens", "0" * 32, (2, 3), lambda: tokens) is tokens
    assert list((tmp_path / "tokens").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="cache=False"):
        cached_tokens(tmp_path / "file" / "tokens", "0" * 32, (2, 3), lambda: tokens)


def tokens(mask):
    mask = np.array(mask, bool)
    return {
        "input_ids": mask.astype(np.int32),
        "attention_mask": mask,
        "weight": np.ones(len(mask), np.float32),
    }


def test_lengths_and_trim():
    mask = [[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]
    data = Dataset(tokens(mask), np.zeros(4, np.int32), 2, buckets=(2, 4))
    assert lengths(data).tolist() == [2, 3, 0, 4]
    assert lengths(Dataset({"attention_mask": jnp.asarray(mask)}, np.zeros(4), 2)).tolist() == [
        2,
        3,
        0,
        4,
    ]  # 0 and 1 on the device
    cut = trim(data.x, 3)
    assert {name: leaf.shape for name, leaf in cut.items()} == {
        "input_ids": (4, 3),
        "attention_mask": (4, 3),
        "weight": (4,),
    }
    np.testing.assert_array_equal(cut["input_ids"], data.x["input_ids"][:, :3])
    assert trim(np.zeros((2, 5, 7)), 3).shape == (2, 3, 7)
    inside = jax.jit(lambda x: trim(x, 2))(
        {name: jnp.asarray(leaf) for name, leaf in data.x.items()}
    )
    np.testing.assert_array_equal(inside["input_ids"], data.x["input_ids"][:, :2])
    part = data.take(np.array([0, 1]))
    assert (part.buckets, lengths(part).tolist()) == ((2, 4), [2, 3])
    assert data.fingerprint() == Dataset(data.x, data.y, 2).fingerprint()
    assert from_arrays(tokens(mask), np.array([0, 1, 0, 1]), buckets=[1, 4]).buckets == (1, 4)


X, Y = tokens(np.ones((4, 8))), np.zeros(4, np.int32)
BAD = {
    "falling": (
        lambda: Dataset(X, Y, 2, buckets=(8, 4)),
        r"rise from 1.*got \(8, 4\). Write \(4, 8\)",
    ),
    "twice": (lambda: Dataset(X, Y, 2, buckets=(4, 4, 8)), "each once"),
    "zero": (lambda: Dataset(X, Y, 2, buckets=(0, 8)), "rise from 1"),
    "last": (
        lambda: Dataset(X, Y, 2, "mine", buckets=(4, 6)),
        "mine: buckets end with T, the 8 tokens",
    ),
    "floats": (lambda: Dataset(X, Y, 2, buckets=(4.0, 8.0)), "integers such as"),  # pyright: ignore[reportArgumentType]
    "number": (lambda: Dataset(X, Y, 2, buckets=8), "integers such as"),  # pyright: ignore[reportArgumentType]
    "no mask": (
        lambda: Dataset({"input_ids": X["input_ids"]}, Y, 2, buckets=(8,)),
        "x is a dictionary of input_ids",
    ),
    "array": (lambda: Dataset(X["input_ids"], Y, 2, buckets=(8,)), "x is ndarray"),
    "mask of one axis": (
        lambda: Dataset({"attention_mask": Y}, Y, 2, buckets=(8,)),
        r"is \[4\], \[N, T\] expected",
    ),
    "another leaf": (
        lambda: Dataset({**X, "image": np.ones((4, 3, 3))}, Y, 2, buckets=(8,)),
        r"x\['image'\] is \[4, 3, 3\]",
    ),
    "lengths": (lambda: lengths(Dataset(np.ones((4, 8)), Y, 2)), "token lengths are read from"),
    "trim": (lambda: trim(X, 0), "at least 1; got 0"),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD)
def test_wrong_buckets_are_named(call, message):
    with pytest.raises(DataError, match=message):
        call()


@pytest.mark.parametrize(
    ("max_length", "buckets", "wanted"),
    [
        (128, None, (32, 64, 96, 128)),
        (100, None, (32, 64, 96, 100)),
        (16, None, (16,)),
        (256, None, (32, 64, 96, 128, 256)),
        (64, (8, 64), (8, 64)),
        (64, (), ()),
    ],
)
def test_buckets_of_glue(alone, rte, vocabulary, max_length, buckets, wanted):
    data = glue("rte", vocabulary, rte, max_length=max_length, buckets=buckets, cache=False)[
        "train"
    ]
    assert data.buckets == wanted
    assert lengths(data).max() <= max_length


@pytest.mark.parametrize("name", ["mrpc", "stsb", "rte", "cola", "wnli"])
def test_real_ids_are_those_of_bert(name):
    root = os.environ.get("JAXTICKETS_DATA", "")
    vocabulary = os.path.join(root, "bert_uncased_vocab.txt")
    if not root or not os.path.exists(vocabulary):
        pytest.skip("set JAXTICKETS_DATA to a folder with glue_data and bert_uncased_vocab.txt")
    data = glue(name, vocabulary, root, splits=("validation",), cache=False)["validation"]
    task = glue_task(name)
    texts = read_tsv(task, Path(root, "glue_data", task.folder, "dev.tsv"))
    tool = transformers.BertTokenizer(vocab=vocabulary)
    wanted = tool(texts.first, texts.second, padding="max_length", truncation=True, max_length=128)
    for leaf in LEAVES:
        np.testing.assert_array_equal(data.x[leaf], wanted[leaf])
    assert (
        data.x["input_ids"] == 100
    ).mean() < 1e-3  # hardly a word is unknown to the real vocabulary
