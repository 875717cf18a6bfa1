"""Sets prepared by tensorflow-datasets, written and read by the real library, without TensorFlow."""

import struct
import sys

import numpy as np
import pytest
from others import others

from jaxtickets.data import DataError, DataNotFoundError, load
from jaxtickets.data.tfds import find_prepared, read_frames

others("tensorflow_datasets")


def some(count, classes, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), rng.integers(0, classes, count)


@pytest.mark.parametrize("form", ["array_record", "tfrecord"])
@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_reads_what_was_prepared(alone, tmp_path, prepare, to_tfrecord, name, classes, form):
    train, test = some(20, classes), some(5, classes, seed=1)
    folder = prepare({"train": train, "test": test}, name)
    if form == "tfrecord":
        to_tfrecord(folder)
    for split, (x, y) in (("train", train), ("test", test)):
        for place in (tmp_path, folder.parent, folder):
            data = load(name, split, place, download=False)
            np.testing.assert_array_equal(data.x, x)
            np.testing.assert_array_equal(data.y, y)
            assert (data.x.dtype, data.y.dtype, data.num_classes) == (np.uint8, np.int32, classes)


def test_newest_version(tmp_path):
    for version in ("3.0.2", "3.0.10", "3.0.9", "incomplete.3.1.0"):
        (tmp_path / "cifar10" / version).mkdir(parents=True)
        (tmp_path / "cifar10" / version / "dataset_info.json").write_text("{}")
    assert find_prepared(tmp_path, "cifar10") == tmp_path / "cifar10" / "3.0.10"
    assert (
        find_prepared(tmp_path / "cifar10" / "3.0.2", "cifar10") == tmp_path / "cifar10" / "3.0.2"
    )
    assert find_prepared(tmp_path, "cifar100") is None


def test_split_that_was_not_prepared(alone, tmp_path, prepare):
    prepare({"test": some(3, 10)})
    with pytest.raises(DataNotFoundError, match="lacks the split 'train'"):
        load("cifar10", "train", tmp_path, download=False)


@pytest.mark.parametrize("form", ["array_record", "tfrecord"])
@pytest.mark.parametrize(
    "damage", ["missing", "short", "counts", "many", "label", "shape", "format"]
)
def test_damage_is_named(alone, tmp_path, prepare, to_tfrecord, form, damage):
    pixels, labels = some(9, 10)
    if damage == "label":
        labels[4] = 10
    if damage == "shape":
        pixels = pixels[:, :16]
    folder = prepare({"train": (pixels, labels)}, shape=(None, None, 3))
    if form == "tfrecord":
        to_tfrecord(folder)
    shard = sorted(folder.glob("*record-00000"))[0]
    info = folder / "dataset_info.json"
    if damage == "missing":
        shard.unlink()
    if damage == "short":
        shard.write_bytes(shard.read_bytes()[:-1000])
    if damage == "counts":
        info.write_text(info.read_text().replace('"8"', '"9"'))
    if damage == "many":  # no room is made for them
        info.write_text(info.read_text().replace('"8"', f'"{10**15}"'))
    if damage == "format":
        info.write_text(info.read_text().replace(form, "riegeli"))
        for path in folder.glob("*record-*"):
            path.rename(path.with_name(path.name.replace(form, "riegeli")))
    with pytest.raises(DataError) as error:
        load("cifar10", "train", tmp_path, download=False)
    assert str(folder) in str(error.value)
    expected = {
        "missing": shard.name,
        "label": "label 4 of 'train' is 10, 0 to 9",
        "shape": r"[16, 32, 3]",
        "format": "riegeli",
    }
    expected["many"] = (
        "dataset_info.json gives 1,000,000,000,000,001 examples of 'train', whose files have"
    )
    assert expected.get(damage, "") in str(error.value)


def test_without_the_library_it_says_what_to_install(alone, tmp_path, prepare, monkeypatch):
    prepare({"train": some(3, 10)})
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxtickets\[vision\]'"):
        load("cifar10", "train", tmp_path, download=False)


def test_frames(tmp_path):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(
        struct.pack("<QI", 3, 0) + b"abc" + bytes(4) + struct.pack("<QI", 0, 0) + bytes(4)
    )
    assert list(read_frames(path)) == [b"abc", b""]
    for end in (5, 14, 18, 20):
        path.write_bytes(
            (struct.pack("<QI", 3, 0) + b"abc" + bytes(4) + struct.pack("<QI", 2**60, 0))[:end]
        )
        with pytest.raises(DataError, match=f"{end} bytes found"):
            list(read_frames(path))
