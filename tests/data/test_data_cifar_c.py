"""Published corrupted sets: what is read equals what was written, only that is read, and what is damaged is named."""

import dataclasses
import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from jaxtickets.data import (
    CORRUPTIONS,
    CorruptedImages,
    CorruptedSet,
    DataError,
    DataNotFoundError,
    Standardise,
    cifar10_c,
    cifar100_c,
    imagenet_c,
)
from jaxtickets.data.cifar_c import CIFAR10_C, CIFAR100_C, corrupted_sets
from jaxtickets.data.published import CIFAR10, CIFAR100
from jaxtickets.dataset import EvaluationStream

COUNT = 4
TINY = {
    published.name: dataclasses.replace(published, records=COUNT)
    for published in (CIFAR10_C, CIFAR100_C)
}
SMALL = pytest.mark.parametrize("small", TINY.values(), ids=TINY)


def arrays(published, corruption, severities=5):
    rng = np.random.default_rng([published.clean.num_classes, CORRUPTIONS.index(corruption)])
    x = rng.integers(0, 256, (severities * COUNT, 32, 32, 3), dtype=np.uint8)
    y = np.tile(
        np.random.default_rng(1).integers(0, published.clean.num_classes, COUNT), severities
    )
    return x, y


def write(root, published, corruptions=("fog", "snow"), labels=np.uint8, folder=None):
    folder = root / (published.folder if folder is None else folder)
    folder.mkdir(parents=True, exist_ok=True)
    for corruption in corruptions:
        x, y = arrays(published, corruption)
        np.save(folder / f"{corruption}.npy", x)
        np.save(folder / "labels.npy", y.astype(labels))
    return folder


def sets(published, place, corruptions=("fog", "snow"), severities=(1, 2, 3, 4, 5)):
    return corrupted_sets(published, "cifar10_c", place, corruptions, severities)


def check(found, published, pairs):
    assert [(each.corruption, each.severity) for each in found] == list(pairs)
    for each in found:
        x, y = arrays(published, each.corruption)
        rows = slice((each.severity - 1) * COUNT, each.severity * COUNT)
        np.testing.assert_array_equal(each.x, x[rows])
        np.testing.assert_array_equal(each.y, y[rows])
        assert (each.x.dtype, each.y.dtype, each.generated, each.num_classes) == (
            np.uint8,
            np.int32,
            False,
            published.clean.num_classes,
        )
        assert each.name == f"{published.name}/{each.corruption}/{each.severity}"
        assert each.prepare == Standardise(published.clean.mean, published.clean.std)


def tar(path, folder, mode="w"):
    with tarfile.open(path, mode) as archive:
        archive.add(folder, folder.name)
    return path


@SMALL
@pytest.mark.parametrize("labels", [np.uint8, np.int64])
@pytest.mark.parametrize("form", ["folder", "direct", "archive"])
def test_what_is_read_is_what_was_written(alone, tmp_path, small, form, labels):
    folder = write(tmp_path / "unpacked", small, labels=labels)
    place = {"folder": folder.parent, "direct": folder, "archive": tmp_path}[form]
    if form == "archive":
        tar(tmp_path / small.archive, folder)
    found = sets(small, place)
    assert len(found) == 10
    assert (
        repr(found)
        == f"CorruptedSets({small.name}: 10 sets, 2 corruptions, severities [1, 2, 3, 4, 5])"
    )
    check(found, small, [(name, level) for name in ("fog", "snow") for level in range(1, 6)])
    check(sets(small, place, "snow", 4), small, [("snow", 4)])
    assert isinstance(found[0], CorruptedSet)
    found[0].x[:] = 0  # its own memory


@pytest.mark.parametrize("form", ["array_record", "tfrecord"])
def test_prepared_by_tensorflow_datasets(alone, tmp_path, prepare, to_tfrecord, form):
    small = TINY["cifar10-c"]
    for name, place, severity in (("fog", "fog_3", 3), ("glass_blur", "frosted_glass_blur_5", 5)):
        x, y = arrays(small, name)
        rows = slice((severity - 1) * COUNT, severity * COUNT)
        folder = prepare({"test": (x[rows], y[rows])}, f"cifar10_corrupted/{place}", "1.0.0")
        if form == "tfrecord":
            to_tfrecord(folder)
    check(sets(small, tmp_path, "fog", 3), small, [("fog", 3)])
    check(sets(small, tmp_path, "glass_blur", 5), small, [("glass_blur", 5)])
    with pytest.raises(
        DataNotFoundError, match="cifar10_corrupted lacks fog_5, frosted_glass_blur_3"
    ):
        sets(small, tmp_path, ("fog", "glass_blur"), (3, 5))
    with pytest.raises(
        DataError, match=r"fog_3.1\.0\.0: 4 examples of 'test' found, 10,000 expected"
    ):
        _ = cifar10_c(tmp_path, "fog", 3)[0]


def test_places_in_order(alone, tmp_path, monkeypatch):
    small = TINY["cifar10-c"]
    write(tmp_path / "argument", small)
    write(alone / ".cache" / "jaxtickets", small, ("fog",))
    write(tmp_path / "variable", small, ("snow",))
    monkeypatch.setenv("JAXTICKETS_DATA", str(tmp_path / "variable"))
    assert len(sets(small, None, "fog")) == len(sets(small, None, "snow")) == 5
    with pytest.raises(
        DataNotFoundError,
        match=r"variable.CIFAR-10-C lacks fog.npy\n  cache .*CIFAR-10-C lacks snow.npy",
    ):
        sets(small, None)
    with pytest.raises(
        DataNotFoundError,
        match=r"data_dir: .*elsewhere: no such folder\nPut CIFAR-10-C.tar from https://zenodo",
    ):
        sets(small, tmp_path / "elsewhere", "fog")


def test_nothing_there(alone, tmp_path):
    with pytest.raises(DataNotFoundError) as error:
        cifar100_c(tmp_path, "fog", 3)
    for part in (
        "cifar100-c, fog/3",
        str(tmp_path),
        "no CIFAR-100-C, CIFAR-100-C.tar",
        "jt.data.corrupted(jt.data.cifar100('test'), seed=0)",
    ):
        assert part in str(error.value)
    for function in (cifar10_c, cifar100_c):
        with pytest.raises(DataError, match=r"corruptions are some of .*; got 'mist'"):
            function(tmp_path, ("fog", "mist"))
        with pytest.raises(DataError, match=r"severities are some of 1, 2, 3, 4, 5; got \(6,\)"):
            function(tmp_path, severities=(6,))


def npy(array, version=(1, 0)):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("fog", lambda x, y: npy(x)[:-1], r"size: 61,567 bytes found, 61,568 expected"),
        ("fog", lambda x, y: npy(x) + b"\0", r"size: 61,569 bytes found"),
        ("fog", lambda x, y: b"", "header: not an array"),
        ("fog", lambda x, y: b"PK\x03\x04" + npy(x), "header: not an array"),
        ("fog", lambda x, y: npy(x)[:50], "header: not an array"),
        ("fog", lambda x, y: npy(x).replace(b"descr", b"drscr"), "header: not an array"),
        (
            "fog",
            lambda x, y: npy(x).replace(b"(20,", b"(-1,"),
            r"shape: \[-1, 32, 32, 3\] found, \[20, 32, 32, 3\] expected",
        ),
        ("fog", lambda x, y: npy(x, (2, 0)), r"format \(2, 0\), \(1, 0\) expected"),
        ("fog", lambda x, y: npy(x.astype(np.float32)), "dtype: float32 found, uint8 expected"),
        ("fog", lambda x, y: npy(np.array([print], object)), "dtype: object found"),
        ("fog", lambda x, y: npy(x[:COUNT]), r"shape: \[4, 32, 32, 3\] found"),
        ("fog", lambda x, y: npy(np.asfortranarray(x)), r"by columns found"),
        ("labels", lambda x, y: npy(y[:-1]), r"shape: \[19\] found, \[20\] expected"),
        ("labels", lambda x, y: npy(y.astype(np.float64)), "dtype: float64 found"),
        (
            "labels",
            lambda x, y: npy(np.where(np.arange(20) == 9, 10, y)),
            "the label of row 9 is 10, 0 to 9 expected",
        ),
        (
            "labels",
            lambda x, y: npy(np.where(np.arange(20) == 9, -1, y)),
            "the label of row 9 is -1",
        ),
    ],
)
def test_damage_names_file_and_field(alone, tmp_path, name, raw, message, packed):
    small = TINY["cifar10-c"]
    folder = write(tmp_path, small)
    (folder / f"{name}.npy").write_bytes(raw(*arrays(small, "fog")))
    if packed:
        tar(tmp_path / "CIFAR-10-C.tar", folder)
        for path in folder.iterdir():
            path.unlink()
    with pytest.raises(DataError, match=message) as error:
        _ = sets(small, tmp_path)[2]
    assert f"{name}.npy" in str(error.value)
    assert ("CIFAR-10-C.tar" in str(error.value)) == packed


def test_damaged_archives(alone, tmp_path):
    small = TINY["cifar10-c"]
    folder = write(tmp_path / "unpacked", small)
    path = tmp_path / small.archive
    for mode in ("w:gz", "w"):
        tar(path, folder, mode)
        if mode == "w":
            path.write_bytes(path.read_bytes()[:70_000])
        with pytest.raises(DataError, match=r"damaged, incomplete or compressed archive|lacks"):
            sets(small, tmp_path)
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            for name in ("fog", "labels"):
                link = tarfile.TarInfo(f"{small.folder}/{name}.npy")
                link.type, link.linkname = kind, str(folder / f"{name}.npy")
                archive.addfile(link)
    with pytest.raises(DataNotFoundError, match=r"lacks labels\.npy, fog\.npy"):
        sets(small, tmp_path, "fog")


@pytest.mark.parametrize(
    ("function", "published", "clean"),
    [(cifar10_c, CIFAR10_C, CIFAR10), (cifar100_c, CIFAR100_C, CIFAR100)],
)
def test_real_size_through_the_public_door(alone, tmp_path, function, published, clean):
    """Files with a hole where the pixels are: 50,000 images."""
    folder = tmp_path / published.folder
    folder.mkdir()
    np.save(
        folder / "labels.npy", np.tile(np.arange(10_000) % clean.num_classes, 5).astype(np.uint8)
    )
    with (folder / "fog.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (50_000, 32, 32, 3)}
        )
        file.truncate(file.tell() + 50_000 * 3072)
        file.seek(-1, 2)
        file.write(b"\7")
    last = function(tmp_path, "fog")[4]
    assert (last.x.shape, last.x[-1, -1, -1, -1], last.x.max(), last.num_classes) == (
        (10_000, 32, 32, 3),
        7,
        7,
        clean.num_classes,
    )
    assert last.class_names == clean.class_names


WNIDS = ("n01440764", "n01443537", "n02105855")


@pytest.mark.parametrize("layout", ["ImageNet-C/fog/3", "fog/3", "ImageNet-C/weather/fog/3"])
def test_imagenet_c(alone, tmp_path, layout):
    for number, wnid in enumerate(WNIDS[:2]):
        folder = tmp_path / layout / wnid
        folder.mkdir(parents=True)
        Image.new("RGB", (24, 24), (100 * number, 0, 0)).save(folder / f"{wnid}_0.JPEG")
    found = imagenet_c(tmp_path, WNIDS, "fog", 3, size=16, resize=24, workers=0)
    test = found[0]
    assert isinstance(test, CorruptedImages)
    assert isinstance(test, EvaluationStream)
    assert (test.name, test.corruption, test.severity, test.generated, found.generated) == (
        "imagenet-c/fog/3",
        "fog",
        3,
        False,
        False,
    )
    assert test.classes.tolist() == [0, 1]
    assert test.y.tolist() == [0, 1]
    assert [x.shape for x in test.in_order(8)] == [(2, 16, 16, 3)]
    whole = imagenet_c(tmp_path, WNIDS[:2], "fog", 3, size=24, workers=0)[0]
    assert whole.classes is None
    assert whole.resize == 24
    np.testing.assert_allclose(whole.view(0)[..., 0], (0 - 0.485) / 0.229, atol=1e-5)
    with pytest.raises(DataNotFoundError, match=r"lacks fog/4(.|\n)*noise.tar, blur.tar"):
        imagenet_c(tmp_path, WNIDS, "fog", (3, 4))
    with pytest.raises(DataNotFoundError, match=r"no ImageNet-C|lacks snow/1"):
        imagenet_c(tmp_path, WNIDS, "snow")
    with pytest.raises(DataError, match="got 'hail'"):
        imagenet_c(tmp_path, WNIDS, "hail")
    with pytest.raises(DataError, match="n01443537"):
        _ = imagenet_c(tmp_path, WNIDS[:1], "fog", 3)[0]
