"""SVHN from its published files and prepared: digits are digits, and what is damaged is named."""

import numpy as np
import pytest
from scipy.io import savemat

from jaxtickets.data import DataError, DataNotFoundError, Standardise, digits, svhn
from jaxtickets.data.svhn_files import RECORDS, read_mat

LABELS = np.array([10, 1, 9, 10, 5], np.uint8)


def images(count=5):
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def write(path, x=None, y=None, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    x = images().transpose(1, 2, 3, 0) if x is None else x
    savemat(path, {"X": x, "y": LABELS[:, None] if y is None else y, **more}, do_compression=True)
    return path


@pytest.mark.parametrize("labels", [np.uint8, np.float64])
def test_published_file(tmp_path, labels):
    x, y = read_mat(write(tmp_path / "test_32x32.mat", y=LABELS[:, None].astype(labels)), 5)
    np.testing.assert_array_equal(x, images())
    np.testing.assert_array_equal(y, [0, 1, 9, 0, 5])
    assert (x.dtype, y.dtype, x.flags.c_contiguous) == (np.uint8, np.int32, True)


@pytest.mark.parametrize("place", ["", "SVHN", "svhn"])
def test_through_the_public_door(alone, tmp_path, monkeypatch, place):
    monkeypatch.setitem(RECORDS, "test", 5)
    write(tmp_path / place / "test_32x32.mat")
    data = svhn("test", tmp_path)
    assert (len(data), data.num_classes, data.name, data.class_names[0]) == (5, 10, "svhn", "0")
    assert isinstance(data.prepare, Standardise)
    prepare = digits("test").prepare
    assert svhn("test", tmp_path, prepare).prepare is prepare
    monkeypatch.setenv("JAXTICKETS_DATA", str(tmp_path))
    assert svhn().fingerprint() == data.fingerprint()


@pytest.mark.parametrize("form", ["array_record", "tfrecord"])
def test_prepared(alone, tmp_path, prepare, to_tfrecord, form):
    folder = prepare({"test": (images(), LABELS % 10)}, "svhn_cropped", "3.1.0")
    if form == "tfrecord":
        to_tfrecord(folder)
    data = svhn("test", tmp_path)
    np.testing.assert_array_equal(data.x, images())
    np.testing.assert_array_equal(data.y, LABELS % 10)
    with pytest.raises(DataNotFoundError, match="lacks the split 'train'"):
        svhn("train", tmp_path)


def test_what_is_wrong(alone, tmp_path):
    path = tmp_path / "test_32x32.mat"
    x = images().transpose(1, 2, 3, 0)
    for content, message in (
        ({"x": x[..., :4]}, r"X: uint8\[32, 32, 3, 4\] found, uint8\[32, 32, 3, 5\] expected"),
        ({"x": images()}, r"X: uint8\[5, 32, 32, 3\] found"),
        ({"x": x.astype(np.float64)}, r"X: float64\[32, 32, 3, 5\] found"),
        ({"y": LABELS[None]}, r"y: uint8\[1, 5\] found, uint8\[5, 1\] expected"),
        ({"y": LABELS[:, None] % 10}, "y: the label of image 0 is 0, 1 to 10 expected"),
        ({"y": LABELS[:, None] + 0.5}, r"y: the label of image 0 is 10\.5"),
        ({"y": np.full((5, 1), np.nan)}, "y: the label of image 0 is nan"),
        ({"y": np.array([["a"]] * 5, object)}, r"y: cell\[5, 1\] found"),
    ):
        with pytest.raises(DataError, match=message) as error:
            read_mat(write(path, **content), 5)
        assert str(path) in str(error.value)
    savemat(path, {"X": x})
    with pytest.raises(DataError, match="y: nothing found"):
        read_mat(path, 5)
    whole = write(path).read_bytes()
    for damaged in (
        b"",
        b"\x89HDF\r\n\x1a\n" * 40,
        whole[: len(whole) // 2],
        whole[:200] + b"\0" * 60 + whole[260:],
    ):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"test_32x32\.mat"):
            read_mat(path, 5)


def test_nowhere(alone, tmp_path):
    with pytest.raises(
        DataNotFoundError,
        match=r"data_dir: .*: no test_32x32.mat or svhn_cropped(.|\n)*Put test_32x32.mat from http",
    ):
        svhn("test", tmp_path)
    with pytest.raises(DataError, match="'train', 'test', 'extra'; got 'val'"):
        svhn("val")
