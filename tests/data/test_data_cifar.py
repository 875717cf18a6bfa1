"""CIFAR in every published form: what is read equals what was written, and what is damaged is named."""

import contextlib
import dataclasses
import gzip
import os
import pickle
import tarfile

import numpy as np
import pytest

from jaxtickets.data import (
    CropFlip,
    DataError,
    DataNotFoundError,
    Standardise,
    cifar10,
    cifar100,
    load,
    pair,
)
from jaxtickets.data.cifar import read
from jaxtickets.data.published import CIFAR10, CIFAR100

FORMS = pytest.mark.parametrize("form", ["binary", "pickled"])


@FORMS
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_what_is_read_is_what_was_published(
    alone, tmp_path, small, lay, examples, form, packed, split
):
    lay(tmp_path, small, form, packed=packed)
    x, y = read(small, split, tmp_path, download=False)
    expected_x, expected_y = examples(small, split)
    np.testing.assert_array_equal(x, expected_x)
    np.testing.assert_array_equal(y, expected_y)
    assert (x.dtype, y.dtype, x.flags.c_contiguous) == (np.uint8, np.int32, True)


@FORMS
def test_data_dir_may_be_the_folder_itself(alone, tmp_path, small, lay, examples, form):
    x, _ = read(small, "test", lay(tmp_path, small, form), download=False)
    np.testing.assert_array_equal(x, examples(small, "test")[0])


def test_places_in_order(alone, tmp_path, monkeypatch, small, lay):
    """The variable before the cache, and with an argument neither; a place that lacks the split is passed over."""
    places = {name: tmp_path / name for name in ("argument", "variable", "lacking")} | {
        "cache": alone / ".cache" / "jaxtickets"
    }
    for i, (name, place) in enumerate(places.items()):
        folder = lay(
            place, small, "binary", splits=("test",) if name == "lacking" else ("train", "test")
        )
        for path in folder.iterdir():
            raw = bytearray(path.read_bytes())
            raw[small.label_bytes - 1] = i
            path.write_bytes(raw)
    monkeypatch.setenv("JAXTICKETS_DATA", str(places["variable"]))
    assert read(small, "train", places["argument"], download=False)[1][0] == 0
    for given in (places["lacking"], tmp_path / "misspelt"):
        with pytest.raises(DataNotFoundError, match=rf"data_dir: {given}"):
            read(small, "train", given, download=False)
    assert read(small, "train", None, download=False)[1][0] == 1
    monkeypatch.delenv("JAXTICKETS_DATA")
    assert read(small, "train", None, download=False)[1][0] == 3
    monkeypatch.setenv("JAXTICKETS_DATA", str(places["lacking"]))
    assert read(small, "train", None, download=False)[1][0] == 3


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_batches_pickled_again_by_python_3(alone, tmp_path, examples, protocol, order):
    small = dataclasses.replace(CIFAR10, test_records=3)
    x, y = examples(small, "test")
    planes = np.asarray(x.transpose(0, 3, 1, 2).reshape(3, -1), order=order)
    raw = pickle.dumps({"data": planes, "labels": y.tolist(), "filenames": ["a.png"] * 3}, protocol)
    (tmp_path / "test_batch").write_bytes(raw)
    found = read(small, "test", tmp_path, download=False)
    np.testing.assert_array_equal(found[0], x)
    np.testing.assert_array_equal(found[1], y)


@FORMS
@pytest.mark.parametrize("change", [-1, 1, -3000])
def test_wrong_size_names_file_and_bytes(alone, tmp_path, lay, form, change):
    small = dataclasses.replace(CIFAR10, train_records=7, test_records=3)
    path = lay(tmp_path, small, form) / ("data_batch_3" + ".bin" * (form == "binary"))
    raw = path.read_bytes()
    path.write_bytes(
        raw[:change] if change < 0 else raw + b"\0" * (change if form == "binary" else 2**21)
    )
    with pytest.raises(DataError) as error:
        read(small, "train", tmp_path, download=False)
    assert str(path) in str(error.value)
    assert f"{path.stat().st_size:,}" in str(error.value) or f"{path.stat().st_size} bytes" in str(
        error.value
    )
    if form == "binary":
        assert f"{len(raw):,}" in str(error.value)


@FORMS
def test_label_out_of_range(alone, tmp_path, small, lay, form):
    path = lay(tmp_path, small, form) / (small.test_files[0] + ".bin" * (form == "binary"))
    raw = bytearray(path.read_bytes())
    record = (
        (small.label_bytes + 3072) + small.label_bytes - 1
        if form == "binary"
        else raw.index(b"]q\x04(") + 7
    )
    raw[record] = small.num_classes
    path.write_bytes(raw)
    with pytest.raises(
        DataError, match=rf"record 1 is {small.num_classes}, 0 to {small.num_classes - 1} expected"
    ):
        read(small, "test", tmp_path, download=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": [0]}, "'data' is NoneType"),
        ({"data": [1], "labels": [0]}, "'data' is list"),
        (
            {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 0]},
            r"uint8\[2, 3072\], uint8\[3, 3072\] expected",
        ),
        ({"data": np.zeros((3, 3072), np.float32), "labels": [0] * 3}, r"float32\[3, 3072\]"),
        ({"data": np.zeros((3, 3072), np.uint8)}, "'labels' is NoneType"),
        (
            {"data": np.zeros((3, 3072), np.uint8), "labels": [0, 0]},
            r"'labels' is int32\[2\], 3 integers expected",
        ),
        (
            {"data": np.zeros((3, 3072), np.uint8), "labels": [0, True, 0]},
            "something else than integers",
        ),
        ({"data": np.zeros((3, 3072), np.uint8), "labels": [0, 2**70, 0]}, "label of record 1"),
        ({"data": np.zeros((3, 3072), np.uint8), "labels": [0, -(2**40), 0]}, "label of record 1"),
        ([1, 2], "holds a list"),
    ],
)
def test_malformed_batches(alone, tmp_path, content, message):
    (tmp_path / "test_batch").write_bytes(pickle.dumps(content, 2))
    with pytest.raises(DataError, match=message):
        read(dataclasses.replace(CIFAR10, test_records=3), "test", tmp_path, download=False)


def test_damaged_archives(alone, tmp_path, small, lay, archive_of, contents):
    path = lay(tmp_path, small, "binary", packed=True)
    whole = path.read_bytes()
    for damaged in (
        whole[: len(whole) // 2],
        b"not an archive",
        b"",
        gzip.compress(b"not a tar" * 1000),
        whole[:4000] + b"\xff" * 500 + whole[4500:],
    ):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"damaged or incomplete archive|lacks|label of record"):
            read(small, "train", tmp_path, download=False)
    plain = bytearray(gzip.decompress(whole))
    plain[plain.index(small.train_files[0].encode()) + 512 + 1000] ^= 1
    path.write_bytes(gzip.compress(plain)[:-8] + whole[-8:])
    with pytest.raises(DataError, match="CRC"):  # one pixel
        read(small, "train", tmp_path, download=False)
    files = contents(small, "binary", "test")
    name = small.test_files[0] + ".bin"
    archive_of(path, {f"{small.binary_folder}/{name}": files[name] + b"\0"})
    with pytest.raises(
        DataError,
        match=rf"{name}: {len(files[name]) + 1:,} bytes found, at most {len(files[name]):,} expected",
    ):
        read(small, "test", tmp_path, download=False)
    archive_of(path, {f"../{small.binary_folder}/{name}": files[name]})
    with pytest.raises(DataError, match="lacks"):
        read(small, "test", tmp_path, download=False)


def test_links_in_an_archive_are_not_followed(alone, tmp_path, small, contents):
    name = f"{small.test_files[0]}.bin"
    (tmp_path / "outside").write_bytes(contents(small, "binary", "test")[name])
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
        with tarfile.open(tmp_path / small.archives[0], "w:gz") as archive:
            link = tarfile.TarInfo(f"{small.binary_folder}/{name}")
            link.type, link.linkname = kind, str(tmp_path / "outside")
            archive.addfile(link)
        with pytest.raises(DataError, match="lacks"):
            read(small, "test", tmp_path, download=False)


def test_damaged_headers_give_data_errors_only(alone, tmp_path, lay):
    small = dataclasses.replace(CIFAR10, test_records=1)
    path = lay(tmp_path, small, "binary", splits=("test",), packed=True)
    plain, rng = gzip.decompress(path.read_bytes()), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(plain)
        for place in rng.integers(0, 512, 3):  # the first member's header, then the second's
            damaged[place + 1024 * rng.integers(2)] = rng.integers(256)
        path.write_bytes(gzip.compress(damaged, 0))
        with contextlib.suppress(DataError):
            read(small, "test", tmp_path, download=False)


def test_split_that_is_not_there(alone, tmp_path, small, lay):
    lay(tmp_path, small, "binary", splits=("test",))
    assert len(read(small, "test", tmp_path, download=False)[1]) == 3
    with pytest.raises(DataNotFoundError) as error:
        read(small, "train", tmp_path, download=False)
    assert f"lacks {small.train_files[0]}.bin" in str(error.value)
    assert "download=False" in str(error.value)


def test_nothing_there_and_no_network(alone, tmp_path, monkeypatch):
    """The message names each place looked at, why the download failed, and the command that needs none."""
    monkeypatch.setenv("JAXTICKETS_DATA", str(tmp_path / "variable"))
    argument, others = (
        tmp_path / "argument",
        (tmp_path / "variable", alone / ".cache" / "jaxtickets"),
    )
    for given, looked in ((argument, (argument,)), (None, others)):
        with pytest.raises(DataNotFoundError) as error:
            cifar10(data_dir=given)
        message = str(error.value)
        assert isinstance(error.value, FileNotFoundError)
        for part in (*looked, CIFAR10.url, "refused"):
            assert str(part) in message
        assert "python experiments/edst_cifar.py --preset demo" in message
    assert not list(tmp_path.rglob("*.part"))


def test_unknown_names(alone):
    with pytest.raises(
        DataError, match=r"digits, cifar10, cifar100, tfds:NAME or hf:NAME; got .mnist."
    ):
        load("mnist")
    for name in ("digits", "cifar10", "cifar100"):
        with pytest.raises(DataError, match=r"'train' or 'test'; got 'val'"):
            load(name, "val")


def test_functions_and_settings_of_the_real_size(alone, tmp_path):
    """A test set of 10,000 images through the public door: statistics, augmentation and class names belong to it."""
    for published, function in ((CIFAR10, cifar10), (CIFAR100, cifar100)):
        record = np.zeros((10_000, published.label_bytes + 3072), np.uint8)
        record[:, published.label_bytes - 1] = np.arange(10_000) % published.num_classes
        (tmp_path / published.binary_folder).mkdir()
        (tmp_path / published.binary_folder / f"{published.test_files[0]}.bin").write_bytes(
            record.tobytes()
        )
        test = function("test", tmp_path, download=False)
        assert (
            test.fingerprint()
            == load(published.name, "test", tmp_path, download=False).fingerprint()
        )
        assert test.x.shape == (10_000, 32, 32, 3)
        assert (test.augment, test.prepare) == (
            CropFlip(4, True),
            Standardise(published.mean, published.std),
        )
        assert len(set(test.class_names)) == test.num_classes == published.num_classes
        assert list(test.class_names) == sorted(test.class_names)


@pytest.fixture(scope="module")
def real():
    if not os.environ.get("JAXTICKETS_DATA"):
        pytest.skip(
            "set JAXTICKETS_DATA to a folder with cifar-10-batches-bin and cifar-100-binary"
        )
    try:
        return {
            "cifar10": pair("cifar10", download=False),
            "cifar100": load("cifar100", "test", download=False),
        }
    except DataNotFoundError as error:
        pytest.skip(f"JAXTICKETS_DATA has not got them: {error}")


def test_real_cifar10(real):
    train, test = real["cifar10"]
    assert train.x.shape == (50_000, 32, 32, 3)
    levels = np.arange(256) / 255
    for channel in range(3):
        share = np.bincount(train.x[..., channel].ravel(), minlength=256) / (50_000 * 32 * 32)
        mean = (share * levels).sum()
        assert abs(mean - train.prepare.mean[channel]) < 5e-5
        assert (
            abs(np.sqrt((share * (levels - mean) ** 2).sum()) - train.prepare.std[channel]) < 5e-5
        )
    np.testing.assert_array_equal(np.bincount(train.y), [5000] * 10)
    np.testing.assert_array_equal(np.bincount(test.y), [1000] * 10)
    assert [train.class_names[i] for i in train.y[:5]] == [
        "frog",
        "truck",
        "truck",
        "deer",
        "automobile",
    ]
    assert [test.class_names[i] for i in test.y[:5]] == ["cat", "ship", "ship", "airplane", "frog"]


def test_real_cifar100(real):
    test = real["cifar100"]
    np.testing.assert_array_equal(np.bincount(test.y), [100] * 100)
    prepared = np.asarray(test.prepare(test.x[::10]))
    np.testing.assert_allclose(prepared.mean((0, 1, 2)), 0, atol=0.05)
    np.testing.assert_allclose(prepared.std((0, 1, 2)), 1, atol=0.05)
