"""GLUE's files: small ones of every task, with all that a CSV reader stumbles over, and the real ones where they are."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from others import others

from jaxtickets.data import GLUE_TASKS, DataError, DataNotFoundError, glue
from jaxtickets.data.glue_files import read_tsv
from jaxtickets.data.glue_tasks import glue_task

transformers = others("transformers")

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *["a", "b", "c", "d", "e", "he", "said", '"', ".", ",", "'", "##s", "##ing", "caf", "##e"],
]

# Texts that a reader of quoted CSV, of universal newlines or of str.splitlines cuts or joins in the wrong places.
TRAPS = [
    '" he said a',
    'b " c',
    '"a b"',
    "he said 'c",
    "a\x85b",
    "c\u2028d",
    "café a",
    "a\x0bb\x1cc",
    "",
    " d  e ",
    '"""',
    "a\rb",
]


def table(task, rows):
    """A TSV file of that task: its published columns, with `rows` of (texts, label as written)."""
    columns = {
        "cola": "source label star sentence",
        "sst2": "sentence label",
        "mrpc": "Quality|#1 ID|#2 ID|#1 String|#2 String",
        "stsb": "index genre filename year old_index source1 source2 sentence1 sentence2 score",
        "qqp": "id qid1 qid2 question1 question2 is_duplicate",
        "mnli": "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse sentence1 "
        "sentence2 label1 gold_label",
        "qnli": "index question sentence label",
        "rte": "index sentence1 sentence2 label",
        "wnli": "index sentence1 sentence2 label",
    }[task.name]
    names = columns.split("|") if "|" in columns else columns.split()
    lines = [] if task.name == "cola" else ["\t".join(names)]
    for number, (texts, label) in enumerate(rows):
        fields = {
            **dict.fromkeys(names, f"x{number}"),
            **dict(zip(task.columns, texts, strict=True)),
            task.label: label,
        }
        lines.append("\t".join(fields[name] for name in names))
    return lines


def rows_of(task, shift=0):
    """Every trap once, as the first text and as the second, with all labels in turn."""
    written = task.written or ("0.000", "2.5", "5.000", "3.333")
    texts = TRAPS[shift:] + TRAPS[:shift]
    return [
        ((text, texts[-i])[: len(task.columns)], written[i % len(written)])
        for i, text in enumerate(texts)
    ]


@pytest.fixture
def lay(tmp_path):
    """`lay(task) -> root`: `glue_data` with the files of every labelled split."""

    def write(task, folder="glue_data"):
        for shift, split in enumerate(task.splits):
            path = tmp_path / folder / task.folder / task.file(split)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes("\n".join(table(task, rows_of(task, shift))).encode() + b"\n")
        return tmp_path

    return write


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n")
    return path


@pytest.mark.parametrize("name", GLUE_TASKS)
def test_texts_and_labels_are_those_that_were_written(lay, name):
    task = glue_task(name)
    root = lay(task)
    for shift, split in enumerate(task.splits):
        found = read_tsv(task, root / "glue_data" / task.folder / task.file(split))
        texts, labels = zip(*rows_of(task, shift), strict=True)
        assert found.first == [pair[0] for pair in texts]
        assert found.second == ([pair[1] for pair in texts] if len(task.texts) == 2 else None)
        if task.regression:
            assert found.y.dtype == np.float32
            np.testing.assert_array_equal(found.y, np.array(labels, np.float32))
        else:
            assert found.y.dtype == np.int32
            assert [task.written[label] for label in found.y] == list(labels)


@pytest.mark.parametrize("name", GLUE_TASKS)
def test_every_task_through_the_door(alone, lay, vocabulary, name):
    task = glue_task(name)
    found = glue(name, vocabulary, lay(task), max_length=16, cache=False)
    tool = transformers.BertTokenizer(vocab=str(vocabulary))
    assert tuple(found) == task.splits
    for shift, (split, data) in enumerate(found.items()):
        texts, _ = zip(*rows_of(task, shift), strict=True)
        wanted = tool(
            *map(list, zip(*texts, strict=True)),
            padding="max_length",
            truncation=True,
            max_length=16,
        )
        for leaf, dtype in (
            ("input_ids", np.int32),
            ("token_type_ids", np.uint8),
            ("attention_mask", bool),
        ):
            assert data.x[leaf].dtype == dtype
            np.testing.assert_array_equal(data.x[leaf], wanted[leaf])
        assert data.name == ("glue/mnli-mm" if split == "validation_mismatched" else f"glue/{name}")
        assert (data.num_classes, data.class_names) == (
            len(task.class_names) or None,
            task.class_names,
        )
        assert data.buckets == (16,)


def test_forms_of_a_file(tmp_path):
    task = glue_task("rte")
    lines = table(task, rows_of(task)[:4])
    wanted = read_tsv(task, write(tmp_path / "unix.tsv", "\n".join(lines) + "\n"))
    for name, text in (
        ("no last newline", "\n".join(lines)),
        ("carriage returns", "\r\n".join(lines) + "\r\n"),
        ("byte order mark", "\ufeff" + "\n".join(lines) + "\n"),
        (
            "columns in another order",
            "\n".join("\t".join(line.split("\t")[::-1]) for line in lines),
        ),
        ("more columns", "\n".join(line + "\tx" for line in lines)),
        ("line ends of old Macs", "\r".join(line.replace("\r", " ") for line in lines) + "\r"),
        ("and a byte order mark", "\ufeff" + "\r".join(line.replace("\r", " ") for line in lines)),
    ):
        found = read_tsv(task, write(tmp_path / f"{name}.tsv", text))
        assert (found.first, found.y.tolist()) == (wanted.first, wanted.y.tolist()), name
        assert wanted.second is not None
        assert found.second == (
            [text.replace("\r", " ") for text in wanted.second]
            if "\n" not in text
            else wanted.second
        ), name


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_labels_of_mnli_are_taken_from_the_gold_column(tmp_path):
    """The validation files have five columns of single judgements before it."""
    task = glue_task("mnli")
    header = ["index", "sentence1", "sentence2", *(f"label{i}" for i in range(1, 6)), "gold_label"]
    row = ["0", "a", "b", *["neutral"] * 2, *["entailment"] * 3, "entailment"]
    found = read_tsv(
        task, write(tmp_path / "dev_matched.tsv", "\t".join(header) + "\n" + "\t".join(row))
    )
    assert (found.first, found.second, found.y.tolist()) == (["a"], ["b"], [0])


def test_broken_rows_of_qqp_are_left_out_and_counted(tmp_path, capsys):
    task = glue_task("qqp")
    lines = table(task, rows_of(task)[:3])
    broken = [
        *lines[:2],
        "7\t8\t9\tthe first part",
        "of a text\tb\t1",
        *lines[2:],
        "",
        "7\t8\t9\ta\ttab\tb\t1",
    ]
    path = write(tmp_path / "train.tsv", "\n".join(broken) + "\n")
    found = read_tsv(task, path)
    assert found.first == TRAPS[:3]
    assert (
        capsys.readouterr().err
        == f"{path}: 4 of 7 rows left out for their number of columns (lines 3, 4, 7, ...)\n"
    )
    read_tsv(task, write(path, "\n".join(lines)))
    assert capsys.readouterr().err == ""


RTE = "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n"
WRONG = {
    "columns": (
        "rte",
        RTE + "1\tc\td\n",
        r"line 3: 3 columns found, 4 expected \(a line break inside a text\?\)",
    ),
    "a tab in the first text": (
        "rte",
        RTE + "1\tc\tc\td\tentailment\n",
        r"line 3: 5 columns found, 4 expected \(a tab inside a text\?\)",
    ),
    "a tab in the only text": (
        "cola",
        "x\t1\t\ta b\nx\t1\t\ta\tb\n",
        r"line 2: 5 columns found, 4 expected \(a tab",
    ),
    "a tab at the end": (
        "sst2",
        "sentence\tlabel\na\t1\t\n",
        r"line 2: 3 columns found, 2 expected",
    ),
    "a tab that leaves a label": (
        "mrpc",
        "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t2\t3\ta\tb\tc\n",
        r"line 2: 6 columns found, 5 exp",
    ),
    "a tab in a score's text": (
        "stsb",
        "sentence1\tsentence2\tscore\na\tb\t1\t2\n",
        r"line 2: 4 columns found, 3 expected",
    ),
    "a header twice": (
        "rte",
        RTE.replace("index", "label"),
        r"line 1: the header has 'label' twice",
    ),
    "empty line": ("rte", RTE + "\n" + RTE, r"line 3: 1 columns found"),
    "label": (
        "rte",
        RTE + "1\tc\td\tEntailment\n",
        "line 3: the label is 'Entailment', one of entailment, not_entailment",
    ),
    "unlabelled": (
        "mnli",
        "sentence1\tsentence2\tgold_label\na\tb\t-\n",
        "line 2: the label is '-'",
    ),
    "header": (
        "rte",
        "index\tquestion\tsentence\tlabel\n",
        "line 1: the header lacks 'sentence1', 'sentence2'.*Is it a file of RTE",
    ),
    "test file": ("sst2", "index\tsentence\n0\ta\n", "lacks 'label'.*Test files have no labels"),
    "no rows": ("rte", RTE.split("\n")[0] + "\n", "no examples found"),
    "nothing": ("cola", "", "no examples found"),
    "nothing with a header": ("rte", "", "line 1: the header lacks"),
    "cola with a header": (
        "cola",
        "source\tlabel\tstar\tsentence\n",
        "line 1: the label is 'label', one of 0, 1",
    ),
    "score": (
        "stsb",
        "sentence1\tsentence2\tscore\na\tb\tfour\n",
        "line 2: the score is 'four', a number from 0 to 5",
    ),
    "large score": (
        "stsb",
        "sentence1\tsentence2\tscore\na\tb\t5.001\n",
        "line 2: the score is 5.001",
    ),
    "nan": ("stsb", "sentence1\tsentence2\tscore\na\tb\tnan\n", "line 2: the score is nan"),
    "encoding": ("sst2", b"sentence\tlabel\na\t1\ncaf\xe9\t1\n", "line 3: not UTF-8 .* at byte 3"),
    "wrong label of qqp": (
        "qqp",
        "question1\tquestion2\tis_duplicate\na\tb\t2\n",
        "line 2: the label is '2'",
    ),
}


@pytest.mark.parametrize(("name", "text", "message"), WRONG.values(), ids=WRONG)
def test_damage_is_named_by_file_and_line(tmp_path, name, text, message):
    path = write(tmp_path / "train.tsv", text)
    with pytest.raises(DataError, match=message) as error:
        read_tsv(glue_task(name), path)
    assert str(error.value).startswith(str(path))


def test_search_order(alone, tmp_path, lay, vocabulary, monkeypatch):
    task = glue_task("rte")
    variable, cache = tmp_path / "variable", alone / ".cache" / "jaxtickets"
    for place, count in ((variable, 2), (cache, 3)):
        for split in task.splits:
            path = place / "glue_data" / "RTE" / task.file(split)
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, "\n".join(table(task, rows_of(task)[:count])))
    settings = {"max_length": 16, "cache": False, "download": False}
    assert len(glue("rte", vocabulary, **settings)["train"]) == 3
    monkeypatch.setenv("JAXTICKETS_DATA", str(variable))
    assert len(glue("rte", vocabulary, **settings)["train"]) == 2
    root = lay(task)
    for place in (root, root / "glue_data", root / "glue_data" / "RTE"):
        assert len(glue("rte", vocabulary, place, **settings)["train"]) == len(TRAPS)
    (
        variable / "glue_data" / "RTE" / "dev.tsv"
    ).unlink()  # a place that lacks a split is passed over as a whole
    assert len(glue("rte", vocabulary, **settings)["train"]) == 3
    assert len(glue("rte", vocabulary, splits=["train"], **settings)["train"]) == 2


def test_an_explicit_root_is_the_only_place(alone, tmp_path, lay, vocabulary, monkeypatch):
    monkeypatch.setenv("JAXTICKETS_DATA", str(lay(glue_task("rte"))))
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        DataNotFoundError,
        match=r"root: .*empty: no glue_data/RTE or RTE, glue/rte/<version>, rte/\*.parquet",
    ) as error:
        glue("rte", vocabulary, tmp_path / "empty")
    assert "JAXTICKETS_DATA: " not in str(error.value)
    with pytest.raises(DataNotFoundError, match=r"root: .*absent: no such folder"):
        glue("rte", vocabulary, tmp_path / "absent")


def test_nothing_anywhere(alone, tmp_path, vocabulary, monkeypatch):
    monkeypatch.setenv("JAXTICKETS_DATA", str(tmp_path / "variable"))
    with pytest.raises(DataNotFoundError) as error:
        glue("qqp", vocabulary, download=False)
    for part in (
        tmp_path / "variable",
        "~/.cache/jaxtickets",
        "download=False",
        "QQP with train.tsv, dev.tsv",
        "gluebenchmark.com",
    ):
        assert str(part) in str(error.value)
    with pytest.raises(DataNotFoundError, match="source is 'files'"):
        glue("qqp", vocabulary, source="files")


def test_a_split_that_is_not_there_is_named(alone, lay, vocabulary):
    root = lay(glue_task("qnli"))
    (root / "glue_data" / "QNLI" / "train.tsv").unlink()
    with pytest.raises(
        DataNotFoundError,
        match=r"QNLI lacks train.tsv \(for what is there: splits=\('validation',\)\)",
    ):
        glue("qnli", vocabulary, root)
    assert list(
        glue("qnli", vocabulary, root, splits=("validation",), max_length=16, cache=False)
    ) == ["validation"]


def test_unknown_names(alone, vocabulary, tmp_path):
    for call, message in (
        (lambda: glue("imdb", vocabulary), "task is one of cola, sst2, .*; got 'imdb'.$"),
        (lambda: glue("SST-2", vocabulary), "Did you mean 'sst2'"),
        (
            lambda: glue("mnli", vocabulary, splits=("validation",)),
            "splits are some of train, validation_matched, validation_mismatched",
        ),
        (lambda: glue("rte", vocabulary, splits=()), "splits are some of train, validation; got"),
        (
            lambda: glue("rte", vocabulary, source="csv"),
            "source is one of auto, files, tfds, huggingface; got 'csv'",
        ),
    ):
        with pytest.raises(DataError, match=message):
            call()


COUNTS = {
    "mrpc": (3668, 408),
    "stsb": (5749, 1500),
    "rte": (2490, 277),
    "cola": (8551, 1043),
    "sst2": (67349, 872),
    "wnli": (635, 71),
}


def real(name, split):
    """A split of the real data, after a comparison with Python's own reader of tables, told that nothing is quoted."""
    if not os.environ.get("JAXTICKETS_DATA"):
        pytest.skip("set JAXTICKETS_DATA to a folder with glue_data")
    task = glue_task(name)
    path = Path(os.environ["JAXTICKETS_DATA"], "glue_data", task.folder, task.file(split))
    if not path.exists():
        pytest.skip(f"JAXTICKETS_DATA has no {task.folder}/{task.file(split)}")
    found = read_tsv(task, path)
    with path.open(encoding="utf-8", newline="") as file:  # as tensorflow-datasets reads them
        rows = list(
            csv.DictReader(file, task.header or None, delimiter="\t", quoting=csv.QUOTE_NONE)
        )
    assert found.first == [row[task.columns[0]] for row in rows]
    assert found.second == (
        [row[task.columns[1]] for row in rows] if len(task.columns) == 2 else None
    )
    return found


@pytest.mark.parametrize("name", COUNTS)
def test_real_counts(name):
    assert tuple(len(real(name, split)) for split in ("train", "validation")) == COUNTS[name]


def test_real_qnli():
    assert len(real("qnli", "validation")) == 5463


def test_real_labels():
    """Shares of the classes as the publications give them, and a few rows by eye."""
    mrpc, cola, sst2 = real("mrpc", "train"), real("cola", "train"), real("sst2", "validation")
    assert mrpc.y.sum() == 2474  # 67.4 % paraphrases
    assert (
        round(cola.y.mean(), 3) == 0.704
    )  # Warstadt et al. 2019: 70.4 % acceptable in the training set
    assert (sst2.first[0], sst2.y[0]) == ("it 's a charming and often affecting journey . ", 1)
    assert mrpc.second is not None
    assert mrpc.second[0].startswith('Referring to him as only " the witness " , Amrozi')
    stsb = real("stsb", "validation")
    assert (stsb.first[0], stsb.y[0], stsb.y.min(), stsb.y.max()) == (
        "A man with a hard hat is dancing.",
        5.0,
        0.0,
        5.0,
    )
    rte = real("rte", "validation")
    assert (rte.y[0], rte.y[1]) == (1, 0)  # not_entailment, entailment
