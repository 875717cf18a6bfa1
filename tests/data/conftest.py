"""Small data sets in the publisher's formats, and a world without network, cache or environment."""

import dataclasses
import io
import struct
import tarfile

import numpy as np
import pytest
from others import others

from jaxtickets.data.published import CIFAR10, CIFAR100


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """No JAXTICKETS_DATA, an empty home, and a proxy that refuses at once: what a test finds it has put there."""
    monkeypatch.delenv("JAXTICKETS_DATA", raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture(params=[CIFAR10, CIFAR100], ids=["cifar10", "cifar100"])
def small(request):
    """Both data sets with 7 images a training file and 3 a test file."""
    return dataclasses.replace(request.param, train_records=7, test_records=3)


@pytest.fixture
def examples():
    """`examples(published, split) -> (x uint8 [N, 32, 32, 3], y int32 [N])`, the same for equal arguments."""

    def make(published, split):
        rng = np.random.default_rng([published.num_classes, split == "train"])
        total = published.records(split) * len(published.files(split))
        return rng.integers(0, 256, (total, 32, 32, 3), dtype=np.uint8), rng.integers(
            0, published.num_classes, total, dtype=np.int32
        )

    return make


@pytest.fixture
def contents(examples):
    """`contents(published, form, split) -> {file name: bytes}` in the publisher's layout."""

    def make(published, form, split):
        x, y = examples(published, split)
        planes = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        count, files = published.records(split), {}
        for i, name in enumerate(published.files(split)):
            rows = slice(i * count, (i + 1) * count)
            if form == "binary":
                coarse = np.full((count, published.label_bytes - 1), 19, np.uint8)
                files[f"{name}.bin"] = np.hstack(
                    [coarse, y[rows, None].astype(np.uint8), planes[rows]]
                ).tobytes()
            else:
                files[name] = python2_pickle(planes[rows], y[rows].tolist(), published.label_key)
        return files

    return make


@pytest.fixture
def lay(contents):
    """`lay(root, published, form, splits, packed) -> path`: writes the folder, or its tar.gz, and says where."""

    def write(root, published, form, splits=("train", "test"), packed=False):
        folder = published.binary_folder if form == "binary" else published.python_folder
        files = {
            name: raw for split in splits for name, raw in contents(published, form, split).items()
        }
        if packed:
            return pack(
                root / published.archives[form != "binary"],
                {f"{folder}/{name}": raw for name, raw in files.items()},
            )
        (root / folder).mkdir(parents=True)
        for name, raw in files.items():
            (root / folder / name).write_bytes(raw)
        return root / folder

    return write


def pack(path, members):
    """A tar.gz with these members, after a readme nobody asked for."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, raw in {"readme.html": b"hello", **members}.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return path


def python2_pickle(planes, labels, label_key):
    """Byte for byte what Python 2's cPickle wrote in protocol 2: byte strings, the state of an array, no Unicode."""

    def text(value):
        return b"U" + bytes([len(value)]) + value.encode("latin-1")

    def integer(value):
        return b"M" + value.to_bytes(2, "little")

    raw = planes.tobytes()
    dtype = (
        b"cnumpy\ndtype\nq\x0a"
        + text("u1")
        + b"K\x00K\x01\x87Rq\x0b(K\x03"
        + text("|")
        + b"NNN"
        + b"J\xff\xff\xff\xff" * 2
        + b"K\x00tb"
    )
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85"
        + text("b")
        + b"\x87Rq\x09(K\x01"
    )
    array += (
        integer(planes.shape[0])
        + integer(planes.shape[1])
        + b"\x86"
        + dtype
        + b"\x89T"
        + len(raw).to_bytes(4, "little")
        + raw
        + b"tb"
    )
    names = b"]q\x0c(" + b"".join(text(f"image_s_{i:06d}.png") for i in range(len(labels))) + b"e"
    values = b"]q\x04(" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    items = (
        text("batch_label")
        + text("training batch 1 of 5")
        + text(label_key)
        + values
        + text("data")
        + array
        + text("filenames")
        + names
    )
    return b"\x80\x02}q\x01(" + items + b"u."


@pytest.fixture
def archive_of():
    return pack


@pytest.fixture
def cpickle():
    return python2_pickle


@pytest.fixture
def prepare(tmp_path):
    """`prepare(splits, name, version) -> folder`: array_record files of eight examples each."""
    tfds = others("tensorflow_datasets")
    others("array_record.python.array_record_module")
    image = others("PIL.Image")

    def write(splits, name="cifar10", version="3.0.2", shape=(32, 32, 3), labels=100):
        folder = tmp_path / name / version
        folder.mkdir(parents=True)
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=shape),
            "label": tfds.features.ClassLabel(num_classes=labels),
        }
        if name == "cifar100":
            features["coarse_label"] = tfds.features.ClassLabel(num_classes=20)
        own, _, config = name.partition("/")
        identity = tfds.core.dataset_info.DatasetIdentity(
            name=own,
            config_name=config or None,
            version=tfds.core.Version(version),
            data_dir=str(folder),
            module_name="none",
        )
        info = tfds.core.DatasetInfo(
            builder=identity, features=tfds.features.FeaturesDict(features)
        )
        writer = tfds.core.SequentialWriter(
            info, max_examples_per_shard=8, file_format="array_record"
        )
        writer.initialize_splits(list(splits))
        writer.add_examples(
            {
                split: [
                    example(image, i, x, y, name)
                    for i, (x, y) in enumerate(zip(*data, strict=True))
                ]
                for split, data in splits.items()
            }
        )
        writer.close_all()
        return folder

    return write


def example(image, i, pixels, label, name):
    png = io.BytesIO()
    image.fromarray(pixels).save(png, "PNG")
    png.seek(0)
    coarse = {"coarse_label": 3} if name == "cifar100" else {}
    return {"id": f"train_{i:05d}", "image": png, "label": int(label), **coarse}


@pytest.fixture
def to_tfrecord():
    """`to_tfrecord(folder)`: the same shards in the other format: frames of length, checksum, record, checksum (both left 0)."""
    array_record = others("array_record.python.array_record_module")

    def rewrite(folder):
        for path in list(folder.glob("*.array_record-*")):
            reader = array_record.ArrayRecordReader(str(path))
            records = reader.read_all()
            reader.close()
            path.with_name(path.name.replace("array_record", "tfrecord")).write_bytes(
                b"".join(
                    struct.pack("<QI", len(record), 0) + record + bytes(4) for record in records
                )
            )
            path.unlink()
        info = folder / "dataset_info.json"
        info.write_text(info.read_text().replace("array_record", "tfrecord"))

    return rewrite
