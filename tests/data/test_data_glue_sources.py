"""GLUE as the Hugging Face hub and tensorflow-datasets have it, written and read by the real libraries."""

import sys

import numpy as np
import pytest
from others import others

from jaxtickets.data import GLUE_TASKS, DataError, DataNotFoundError, glue
from jaxtickets.data.glue_tasks import glue_task

transformers = others("transformers")

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *["a", "b", "c", "d", "e", '"', "café", ",", "."],
]
TEXTS = ["a b", '" c', "é d e", "", "a\tb\nc", "a\u2028b"]


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n")
    return path


def columns(task, count=6, shift=0):
    """Columns as the libraries call them: texts, label, idx."""
    texts = [(TEXTS[shift:] + TEXTS[:shift])[i % len(TEXTS)] for i in range(count)]
    labels = [
        (0.0, 5.0, 2.5)[i % 3] if task.regression else i % len(task.class_names)
        for i in range(count)
    ]
    return {
        **{name: [f"{text} {name}" for text in texts] for name in task.texts},
        "label": labels,
        "idx": list(range(count)),
    }


def expect(found, task, split, vocabulary, shift):
    wanted, data = columns(task, shift=shift), found[split]
    tool = transformers.BertTokenizer(vocab=str(vocabulary))
    ids = tool(
        *(wanted[name] for name in task.texts), padding="max_length", truncation=True, max_length=16
    )["input_ids"]
    np.testing.assert_array_equal(data.x["input_ids"], ids)
    np.testing.assert_array_equal(data.y, wanted["label"])
    assert data.y.dtype == (np.float32 if task.regression else np.int32)


@pytest.fixture
def clone(tmp_path):
    """`clone(task, splits) -> folder`: parquet files named as in the repository on the hub, written by `datasets`."""
    datasets = others("datasets")

    def write(task, splits=None, parts=1):
        label = (
            datasets.Value("float32")
            if task.regression
            else datasets.ClassLabel(names=list(task.class_names))
        )
        kinds = {
            **{name: datasets.Value("string") for name in task.texts},
            "label": label,
            "idx": datasets.Value("int32"),
        }
        (tmp_path / "hub" / task.name).mkdir(parents=True, exist_ok=True)
        for shift, split in enumerate(splits or task.splits):
            rows = datasets.Dataset.from_dict(
                columns(task, shift=shift), features=datasets.Features(kinds)
            )
            for part in range(parts):
                path = tmp_path / "hub" / task.name / f"{split}-{part:05d}-of-{parts:05d}.parquet"
                rows.shard(parts, part, contiguous=True).to_parquet(path)
        names = splits or task.splits
        files = "".join(f"  - split: {split}\n    path: {task.name}/{split}-*\n" for split in names)
        (tmp_path / "hub" / "README.md").write_text(
            f"---\nconfigs:\n- config_name: {task.name}\n  data_files:\n{files}---\n"
        )
        return tmp_path / "hub"

    return write


@pytest.mark.parametrize("name", GLUE_TASKS)
def test_a_clone_of_the_repository(alone, clone, vocabulary, name):
    task = glue_task(name)
    found = glue(
        name, vocabulary, clone(task, parts=2 if name == "mnli" else 1), max_length=16, cache=False
    )
    assert tuple(found) == task.splits
    for shift, split in enumerate(task.splits):
        expect(found, task, split, vocabulary, shift)


@pytest.mark.parametrize("name", ["cola", "stsb", "mnli"])
def test_the_hub(alone, tmp_path, clone, vocabulary, monkeypatch, name):
    """The library's own loader, pointed at a folder in place of the repository."""
    import datasets

    task = glue_task(name)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "arrow"))
    monkeypatch.setattr("jaxtickets.data.glue_sources.HUB", str(clone(task)))
    for source in ("auto", "huggingface"):
        found = glue(name, vocabulary, source=source, max_length=16, cache=False)
        for shift, split in enumerate(task.splits):
            expect(found, task, split, vocabulary, shift)
    with pytest.raises(DataNotFoundError, match="download=False"):
        glue(name, vocabulary, max_length=16, cache=False, download=False)


def test_what_the_hub_lacks(alone, tmp_path, clone, vocabulary, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "arrow"))
    monkeypatch.setattr(
        "jaxtickets.data.glue_sources.HUB", str(clone(glue_task("rte"), splits=("train",)))
    )
    with pytest.raises(
        DataNotFoundError, match=r"rte, 'validation' is not to be had: ValueError.*validation"
    ):
        glue("rte", vocabulary, source="huggingface", max_length=16)
    with pytest.raises(DataNotFoundError, match=r"Looked in(.|\n)*is not to be had"):
        glue("rte", vocabulary, max_length=16)


def test_damaged_clones(alone, clone, vocabulary):
    task = glue_task("rte")
    root = clone(task)
    path = root / "rte" / "train-00000-of-00001.parquet"
    raw = path.read_bytes()
    for damaged in (b"", raw[:100], raw[: len(raw) // 2], b"PAR1" + b"\xff" * 200 + b"PAR1"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=f"{path}: cannot be read"):
            glue("rte", vocabulary, root, max_length=16, cache=False)
    path.write_bytes((root / "rte" / "validation-00000-of-00001.parquet").read_bytes())
    path.with_name("validation-00000-of-00001.parquet").unlink()
    with pytest.raises(DataNotFoundError, match=r"rte lacks validation-\*.parquet"):
        glue("rte", vocabulary, root, max_length=16, cache=False)


def test_rows_of_another_task_and_without_labels(alone, clone, vocabulary):
    datasets = others("datasets")
    root = clone(glue_task("rte"))
    path = root / "rte" / "train-00000-of-00001.parquet"
    rows = columns(glue_task("rte"))
    for change, message in (
        (
            {"label": [0, 1, -1, 0, 1, 0]},
            "row 2: the label is -1, 0 to 1 expected. -1 stands for no label",
        ),
        ({"label": [0, 1, 0, 0, 2, 0]}, "row 4: the label is 2"),
        ({"label": [0, None, 0, 0, 1, 0]}, "row 1: the label is None"),
        ({"sentence2": ["a", None, "b", "c", "d", "e"]}, "row 1: 'sentence2' is NoneType"),
    ):
        datasets.Dataset.from_dict({**rows, **change}).to_parquet(path)
        with pytest.raises(DataError, match=message):
            glue("rte", vocabulary, root, max_length=16, cache=False)
    datasets.Dataset.from_dict(columns(glue_task("qnli"))).to_parquet(path)
    with pytest.raises(
        DataError,
        match=r"columns question, sentence, label, idx found, sentence1, sentence2 expected. Is it glue/rte",
    ):
        glue("rte", vocabulary, root, max_length=16, cache=False)
    datasets.Dataset.from_dict({**columns(glue_task("stsb"))}).to_parquet(
        path
    )  # scores where labels should be
    with pytest.raises(DataError, match=r"row 1: the label is 5.0"):
        glue("rte", vocabulary, root, max_length=16, cache=False)


@pytest.mark.parametrize(("library", "source"), [("datasets", "hub"), ("pyarrow", "clone")])
def test_without_the_library_it_says_what_to_install(
    alone, clone, vocabulary, monkeypatch, library, source
):
    root = clone(glue_task("rte"))
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=r"pip install 'jaxtickets\[nlp\]'"):
        glue(
            "rte",
            vocabulary,
            root if source == "clone" else None,
            source="huggingface",
            max_length=16,
        )
    if source == "hub":
        with pytest.raises(DataNotFoundError, match=r"pip install 'jaxtickets\[nlp\]'"):
            glue("rte", vocabulary, max_length=16)


@pytest.fixture
def prepared(tmp_path):
    """`prepared(task) -> root`: array_record files as tensorflow-datasets writes glue/<task>, with its features."""
    tfds = others("tensorflow_datasets")
    others("array_record.python.array_record_module")

    def write(task, splits=None, labels=None):
        folder = tmp_path / "tfds" / "glue" / task.name / "2.0.0"
        folder.mkdir(parents=True)
        label = (
            np.float32
            if task.regression
            else tfds.features.ClassLabel(names=list(task.class_names))
        )
        label = tfds.features.Tensor(shape=(), dtype=np.float32) if task.regression else label
        kinds = {
            **{name: tfds.features.Text() for name in task.texts},
            "label": label,
            "idx": tfds.features.Tensor(shape=(), dtype=np.int32),
        }
        identity = tfds.core.dataset_info.DatasetIdentity(
            name="glue",
            config_name=task.name,
            version=tfds.core.Version("2.0.0"),
            data_dir=str(folder),
            module_name="none",
        )
        info = tfds.core.DatasetInfo(builder=identity, features=tfds.features.FeaturesDict(kinds))
        writer = tfds.core.SequentialWriter(
            info, max_examples_per_shard=4, file_format="array_record"
        )
        writer.initialize_splits(list(splits or task.splits))
        rows = {}
        for shift, split in enumerate(splits or task.splits):
            found = {**columns(task, shift=shift), **({"label": labels} if labels else {})}
            rows[split] = [
                dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)
            ]
        writer.add_examples(rows)
        writer.close_all()
        return tmp_path / "tfds"

    return write


@pytest.mark.parametrize("name", GLUE_TASKS)
def test_a_prepared_set(alone, prepared, vocabulary, name):
    task = glue_task(name)
    root = prepared(task)
    for place in (root, root / "glue" / name, root / "glue" / name / "2.0.0"):
        found = glue(name, vocabulary, place, max_length=16, cache=False)
        for shift, split in enumerate(task.splits):
            expect(found, task, split, vocabulary, shift)


def test_a_prepared_set_that_lacks_a_split_or_an_example(alone, prepared, vocabulary):
    root = prepared(glue_task("rte"), splits=("train",))
    with pytest.raises(DataNotFoundError, match=r"2\.0\.0 lacks validation"):
        glue("rte", vocabulary, root, max_length=16)
    with pytest.raises(DataNotFoundError, match=r"no glue_data/RTE or RTE\n"):
        glue("rte", vocabulary, root, source="files", max_length=16)
    info = root / "glue" / "rte" / "2.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace('"2"', '"3"'))  # shards of 4 and 2 examples
    with pytest.raises(DataError, match=r"2\.0\.0: .*train"):
        glue("rte", vocabulary, root, splits=("train",), max_length=16, cache=False)
    next((root / "glue" / "rte" / "2.0.0").glob("*train*-00001*")).unlink()
    with pytest.raises(DataError, match=r"missing, of 2 files of 'train'"):
        glue("rte", vocabulary, root, splits=("train",), max_length=16, cache=False)
