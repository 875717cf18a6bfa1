"""Pictures in class folders: what is read of them, the views that are cut, and what is said of folders that are wrong."""

import dataclasses
import io
import itertools
import math
import os
import shutil
import sys
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from scipy.io import savemat

from jaxtickets.data import (
    DataError,
    DataNotFoundError,
    image_test,
    image_train,
    imagenet,
    imagenet_a,
)
from jaxtickets.data import image_files as views
from jaxtickets.dataset import Dataset, EvaluationStream, SeekableStream, Stream

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
# Each statistical test fails once in 10^4 keys where nothing is wrong; the keys are fixed, so it never does by chance.
FALSE_ALARM = 1e-4


def noise(seed, width=40, height=32, channels=3):
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, channels), np.uint8)
    return Image.fromarray(small[..., 0] if channels == 1 else small).resize(
        (width, height), Image.Resampling.BICUBIC
    )


def lay(root, classes, count=3, first=0):
    """`count` JPEG files in each class folder, all of other sizes."""
    for c, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(count):
            seed = first + 10 * c + i
            noise(seed, 40 + 3 * i, 32 + 5 * c).save(root / name / f"{name}_{i}.JPEG", quality=90)
    return root


WNIDS = ("n01440764", "n01443537", "n02105855")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("imagenet")
    lay(root / "train", WNIDS, 7)
    lay(root / "val", WNIDS, 3, first=500)
    (root / "train" / "README.txt").write_text("no class")
    (root / "train" / WNIDS[0] / "._hidden.JPEG").write_text("no picture")
    return root


def test_what_is_found(folders):
    train, val = imagenet(folders, size=16)
    assert isinstance(train, Stream)
    assert isinstance(train, SeekableStream)
    assert isinstance(val, EvaluationStream)
    assert not isinstance(val, Stream)  # nothing trains on it by mistake
    assert not isinstance(train, EvaluationStream)
    assert not isinstance(Dataset(np.zeros((2, 1)), np.zeros(2, np.int32), 2), EvaluationStream)
    assert (train.name, len(train), train.num_classes, train.class_names) == (
        "imagenet",
        21,
        3,
        WNIDS,
    )
    assert (len(val), val.y.tolist(), val.classes) == (9, [0, 0, 0, 1, 1, 1, 2, 2, 2], None)
    x, y = next(train.batches(0, 0, 5))
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((5, 16, 16, 3), np.float32, (5,), np.int32)
    assert (val.resize, imagenet(folders)[1].resize, imagenet(folders)[0].size) == (18, 256, 224)


def test_an_epoch_is_every_picture_once_under_its_own_label(folders):
    # A view that shows everything, at the size of the largest picture, is told from the others by its colours.
    train = image_train(
        folders / "train", size=32, scale=(1.0, 1.0), ratio=(0.5, 2.0), flip=False, workers=2
    )
    whole = {}
    for index in range(len(train)):
        pixels = np.asarray(
            Image.open(train.pictures.path(index)).resize((32, 32), Image.Resampling.BILINEAR)
        )
        whole[index] = (pixels / 255 - MEAN) / STD
    for epoch in range(2):
        seen = []
        for x, y in train.batches(3, epoch, 7):
            for one, label in zip(x, y, strict=True):
                distance = [np.abs(one - other).mean() for other in whole.values()]
                seen.append(int(np.argmin(distance)))
                assert train.pictures.files[seen[-1]].startswith(WNIDS[label])
        assert sorted(seen) == list(range(21))
        assert seen != list(range(21))


def equal(a, b):
    pairs = list(itertools.zip_longest(a, b))
    assert all(np.array_equal(x, u) and np.array_equal(y, v) for (x, y), (u, v) in pairs)
    return len(pairs)


def test_batches_are_a_function_of_seed_epoch_and_size_whatever_reads_them(folders):
    by = {n: image_train(folders / "train", size=16, workers=n) for n in (0, 1, 3)}
    reference = list(by[0].batches(5, 2, 4))
    assert len(reference) == 5  # 21 pictures: the last is left out
    assert equal(by[1].batches(5, 2, 4), reference) == 5
    assert equal(by[3].batches(5, 2, 4), reference) == 5
    assert equal(by[3].batches_from(5, 2, 4, 3), reference[3:]) == 2
    assert equal(by[0].batches_from(5, 2, 4, 5), []) == 0
    for other in (by[0].batches(6, 2, 4), by[0].batches(5, 3, 4)):
        x, _ = next(other)
        assert not np.array_equal(x, reference[0][0])
    # The same picture is cut in another way in another epoch and for another member.
    one = [by[0].view(0, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert not any(np.array_equal(a, b) for a, b in itertools.combinations(one, 2))


def test_threads_end_when_reading_stops(folders):
    train = image_train(folders / "train", size=16, workers=3)
    before = set(threading.enumerate())
    reading = train.batches(0, 0, 4)
    next(reading)
    readers = set(threading.enumerate()) - before
    assert readers
    del reading
    until = time.monotonic() + 10  # each finishes the picture that it is at
    while any(reader.is_alive() for reader in readers) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(reader.is_alive() for reader in readers)


def boxes(width, height, count, seed):
    rng = np.random.default_rng(seed)
    drawn = np.array(
        [views.random_box(rng, width, height, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(count)]
    )
    left, top, right, bottom = drawn.T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (right <= width).all()
    assert (bottom <= height).all()
    return left, top, right - left, bottom - top


def test_areas_and_ratios_of_random_boxes_are_those_of_torchvision():
    """Uniform area a and log-ratio l that fit a square: |l| <= min(log 4/3, -log a). Its marginals have closed forms."""
    side, edge = 100_000, math.log(4 / 3)
    left, top, width, height = boxes(side, side, 4000, 0)
    area, ratio = width * height / side**2, np.log(width / height)

    def mass_of_area(a):  # integral of min(edge, -log t) over t in .08 .. a
        a, knee = np.clip(a, 0.08, 1), 3 / 4
        return edge * (np.minimum(a, knee) - 0.08) + np.where(
            a > knee, (a - a * np.log(a)) - (knee - knee * math.log(knee)), 0
        )

    def mass_of_ratio(l):  # integral of exp(-|t|) - .08 over t in -edge .. l
        l = np.clip(l, -edge, edge)
        half = 1 - np.exp(-np.abs(l)) - 0.08 * np.abs(l)
        return (1 - math.exp(-edge) - 0.08 * edge) + np.sign(l) * half

    # 10 draws that all fail have a probability below 1e-8, so the fallback does not show.
    assert stats.kstest(area, lambda a: mass_of_area(a) / mass_of_area(1.0)).pvalue > FALSE_ALARM
    assert (
        stats.kstest(ratio, lambda l: mass_of_ratio(l) / mass_of_ratio(edge)).pvalue > FALSE_ALARM
    )
    # And every place is as likely as any other: a place over the room there is, is uniform on 0 .. 1.
    assert stats.kstest(left / (side - width), "uniform").pvalue > FALSE_ALARM
    assert stats.kstest(top / (side - height), "uniform").pvalue > FALSE_ALARM
    # A test of the test: areas drawn without the redraw are told apart.
    wrong = np.random.default_rng(1).uniform(0.08, 1, 4000)
    assert stats.kstest(wrong, lambda a: mass_of_area(a) / mass_of_area(1.0)).pvalue < FALSE_ALARM


def test_small_pictures_reach_every_place_and_long_ones_fall_back_to_the_centre():
    left, top, width, height = boxes(5, 4, 2000, 2)
    assert {tuple(box) for box in np.stack([left, top]).T} >= {(0, 0), (4, 3)}
    assert width.min() == 1
    assert width.max() == 5
    assert (width * height == 1).any()
    rng = np.random.default_rng(0)
    full, ratio = (1.0, 1.0), (3 / 4, 4 / 3)
    assert views.random_box(rng, 1000, 30, full, ratio) == (
        480,
        0,
        520,
        30,
    )  # 30 * 4/3 = 40 columns
    assert views.random_box(rng, 30, 1000, full, ratio) == (0, 480, 30, 520)  # 30 / (3/4) = 40 rows
    assert views.random_box(rng, 1, 1, full, ratio) == (0, 0, 1, 1)


def test_half_of_the_views_are_mirrored():
    ramp = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8)[None, :, None], (64, 1, 3)))
    rising = 0
    for i in range(1000):
        pixels = views.training_view(
            ramp, np.random.default_rng(i), 8, (0.5, 1.0), (1, 1), True, "bilinear"
        ).astype(int)
        rising += bool(pixels[0, -1, 0] > pixels[0, 0, 0])
        assert pixels[0, -1, 0] != pixels[0, 0, 0]
    assert stats.binomtest(rising, 1000, 0.5).pvalue > FALSE_ALARM
    straight = views.training_view(
        ramp, np.random.default_rng(0), 8, (0.5, 1.0), (1, 1), False, "bilinear"
    ).astype(int)
    assert straight[0, -1, 0] > straight[0, 0, 0]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_training_view_is_the_box_and_nothing_around_it(interpolation):
    picture = noise(1, 50, 45)
    box = views.random_box(np.random.default_rng(4), 50, 45, (0.3, 0.5), (3 / 4, 4 / 3))
    seen = views.training_view(
        picture, np.random.default_rng(4), 16, (0.3, 0.5), (3 / 4, 4 / 3), False, interpolation
    )
    alone = Image.fromarray(np.asarray(picture)[box[1] : box[3], box[0] : box[2]])
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    np.testing.assert_array_equal(seen, np.asarray(alone.resize((16, 16), filters[interpolation])))


@pytest.mark.parametrize(
    ("width", "height"), [(300, 201), (201, 300), (224, 224), (33, 500), (1, 1)]
)
def test_the_evaluation_crop_is_pillows_by_hand(tmp_path, width, height):
    (tmp_path / "a").mkdir()
    noise(3, width, height).save(tmp_path / "a" / "x.JPEG", quality=95)
    test = image_test(tmp_path, size=28, resize=32, workers=0)
    picture = Image.open(tmp_path / "a" / "x.JPEG")
    # torchvision: the long side is int(32 * long / short), the first row int(round((rows - 28) / 2)).
    wide, high = (
        (int(32 * width / height), 32) if height <= width else (32, int(32 * height / width))
    )
    pixels = np.asarray(picture.resize((wide, high), Image.Resampling.BILINEAR), np.float64)
    top, left = round((high - 28) / 2), round((wide - 28) / 2)
    wanted = (pixels[top : top + 28, left : left + 28] / 255 - MEAN) / STD
    np.testing.assert_allclose(test.view(0), wanted, atol=2e-6)  # float32 of numbers up to 2.7
    (x,) = test.in_order(4)
    np.testing.assert_array_equal(x[0], test.view(0))


def test_evaluation_is_in_order_and_keeps_the_short_batch(folders):
    val = imagenet(folders, size=16, workers=2)[1]
    batches = list(val.in_order(4))
    assert [len(batch) for batch in batches] == [4, 4, 1]
    everything = np.concatenate(batches)
    for i in range(9):
        np.testing.assert_array_equal(everything[i], val.view(i))
    assert val.pictures.files[3] == f"{WNIDS[1]}/{WNIDS[1]}_0.JPEG"


def saved(picture, form, **options):
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def test_odd_pictures_are_read_as_rgb(tmp_path):
    (tmp_path / "a").mkdir()
    rgb = noise(5)
    clear = rgb.quantize(16)
    odd = {
        "cmyk": (saved(rgb.convert("CMYK"), "JPEG", quality=95), rgb, 8),
        "grey": (saved(rgb.convert("L"), "JPEG", quality=95), rgb.convert("L").convert("RGB"), 3),
        "png": (saved(rgb, "PNG"), rgb, 0),
        "alpha": (saved(rgb.convert("RGBA"), "PNG"), rgb, 0),
        "palette": (
            saved(clear, "PNG", transparency=bytes([0] * 4 + [255] * 12)),
            clear.convert("RGB"),
            0,
        ),
        "bits": (saved(rgb.convert("1"), "PNG"), rgb.convert("1").convert("RGB"), 0),
    }
    for name, (raw, wanted, tolerance) in odd.items():
        path = tmp_path / "a" / f"{name}.JPEG"  # whatever it is, it is called a JPEG
        path.write_bytes(raw)
        got = views.decode(str(path))
        assert got.mode == "RGB"
        # JPEG's own loss, on average over the pixels; PNG loses nothing.
        assert np.abs(np.asarray(got, int) - np.asarray(wanted, int)).mean() <= tolerance, name
    assert len(list(image_train(tmp_path, size=8).batches(0, 0, 6))) == 1


def big_png(width, height):
    """A PNG whose header promises that many pixels."""

    def chunk(kind, body):
        return (
            len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
        )

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    )


JPEG = saved(noise(7, 64, 64), "JPEG")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (JPEG[: len(JPEG) // 2], ["cut short or damaged", "truncated", "Fetch it again"]),
        (JPEG[:20], ["cut short or damaged|not recognised"]),
        (b"", ["not recognised as JPEG or PNG", "b''"]),
        (b"<html>gone</html>", ["not recognised as JPEG or PNG", "<html>go"]),
        (saved(noise(7), "GIF"), ["not recognised as JPEG or PNG", "GIF8"]),
        (saved(noise(7), "PNG")[:200], ["cut short or damaged"]),
        (saved(Image.fromarray(np.zeros((4, 4), np.uint16)), "PNG"), ["I;16", "8 bits", "RGB"]),
        (big_png(9000, 9000), ["9,000 x 9,000", "67,108,864"]),
        (
            big_png(10_000, 10_000),
            ["100000000|10,000 x 10,000", "67,108,864"],
        ),  # here Pillow warns as well
        (big_png(100_000, 100_000), ["10000000000", "67,108,864"]),  # and here it refuses
    ],
    ids=["half", "head", "empty", "html", "gif", "half_png", "deep_png", "large", "larger", "bomb"],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_cannot_be_read_is_named(tmp_path, raw, words, workers):
    lay(tmp_path, ("a", "b"), 2)
    bad = tmp_path / "b" / "bad.JPEG"
    bad.write_bytes(raw)
    train, test = (
        image_train(tmp_path, size=8, workers=workers),
        image_test(tmp_path, size=8, workers=workers),
    )
    for reading in (train.batches(0, 0, 5), test.in_order(2)):
        with pytest.raises(DataError) as caught:
            list(reading)
        assert str(bad) in str(caught.value)
        for word in words:
            assert any(one in str(caught.value) for one in word.split("|")), str(caught.value)


def test_a_picture_that_went_away_is_named(folders, tmp_path):
    train = image_train(lay(tmp_path / "t", ("a",), 2), size=8)
    (tmp_path / "t" / "a" / "a_1.JPEG").unlink()
    with pytest.raises(DataError, match=r"a_1\.JPEG: cannot be read: No such file"):
        list(train.batches(0, 0, 2))
    with pytest.raises(DataError, match=r"a_1\.JPEG: cannot be read: No such file"):
        train.fingerprint()


def test_folders_that_are_wrong_say_what_and_where_and_what_to_type(tmp_path, alone):
    def refused(*words, kind=DataError, data_dir=tmp_path):
        with pytest.raises(kind) as caught:
            imagenet(data_dir)
        for word in words:
            assert word in str(caught.value), str(caught.value)

    refused(
        "Looked in no place",
        "data_dir=DIR",
        "JAXTICKETS_DATA",
        "image-net.org",
        kind=DataNotFoundError,
        data_dir=None,
    )
    refused(
        "nowhere (no such folder)",
        "--data-dir DIR",
        kind=DataNotFoundError,
        data_dir=tmp_path / "nowhere",
    )
    lay(tmp_path / "train", ("a", "b", "c"), 1)
    refused("has the folder 'train' but no 'val'", str(tmp_path / "val"), kind=DataNotFoundError)
    (tmp_path / "val").mkdir()
    refused(f"{tmp_path / 'val'}: no class folders")
    (tmp_path / "val" / "a.tar").write_bytes(b"")
    refused(f"cd {tmp_path / 'val'} && for f in *.tar")
    (tmp_path / "val" / "a.tar").unlink()
    noise(0).save(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
    refused(
        "1 pictures without class folders",
        "ILSVRC2012_validation_ground_truth.txt",
        f"{tmp_path / 'val'}/CLASS/",
    )
    (tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG").unlink()
    lay(tmp_path / "val", ("a", "d"), 1)
    refused(
        str(tmp_path / "val"),
        "has the class folder d, which training has not",
        "lacks the class folders (2) b, c of training",
        "rename",
    )
    (tmp_path / "train" / "empty").mkdir()
    refused(
        f"{tmp_path / 'train'}: no pictures",
        "class folder empty",
        "Unpack the class again, or move the folder out of",
    )
    (tmp_path / "train" / "empty" / "data.bin").write_bytes(b"")
    refused(
        "class folder empty",
        "In empty there is 1 .bin file (data.bin). Convert them to JPEG or PNG, or move the folder out of",
    )


def test_what_is_left_out_is_counted_and_told_once(tmp_path):
    lay(tmp_path, ("a", "b"), 2)
    for name in (
        "a/1.webp",
        "a/2.WEBP",
        "b/3.webp",
        "b/notes",
        "a/.hidden.JPEG",
        "readme.md",
        "b/4.bmp",
    ):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a" / "gone.JPEG").symlink_to(tmp_path / "nowhere")
    (tmp_path / "c").symlink_to(tmp_path / "nowhere")
    (tmp_path / "b" / "more").mkdir()
    shutil.copy(tmp_path / "a" / "a_0.JPEG", tmp_path / "loose.JPEG")
    with pytest.warns(UserWarning, match="left out") as told:
        train = image_train(tmp_path, size=8)
    assert [str(one.message) for one in told] == [
        f"{tmp_path}: 9 entries are left out: 3 .webp files (a/1.webp, ...), 2 links that lead nowhere (c, ...), "
        "1 picture outside of the class folders (loose.JPEG), 1 .bmp file (b/4.bmp), 1 folder (b/more), 1 file without a suffix (b/notes). "
        "Pictures are named .jpeg, .jpg, .png"
    ]
    assert train.pictures.files == ("a/a_0.JPEG", "a/a_1.JPEG", "b/b_0.JPEG", "b/b_1.JPEG")


def test_links_to_pictures_and_to_classes_are_followed_and_nothing_is_told(folders, tmp_path):
    (tmp_path / "a").symlink_to(folders / "train" / WNIDS[0])
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.JPEG").symlink_to(folders / "train" / WNIDS[1] / f"{WNIDS[1]}_0.JPEG")
    assert len(image_train(tmp_path, size=8)) == 8  # (a warning is an error here)


@pytest.fixture
def tiny(tmp_path):
    """Tiny ImageNet as it is unpacked, with two classes."""
    root = tmp_path / "tiny-imagenet-200"
    for c, name in enumerate(WNIDS[:2]):
        (root / "train" / name / "images").mkdir(parents=True)
        (root / "train" / name / f"{name}_boxes.txt").write_text(f"{name}_0.JPEG\t0\t0\t62\t62\n")
        for i in range(3):
            noise(10 * c + i, 64, 64).save(root / "train" / name / "images" / f"{name}_{i}.JPEG")
    (root / "val" / "images").mkdir(parents=True)
    for i in range(3):
        noise(40 + i, 64, 64).save(root / "val" / "images" / f"val_{i}.JPEG")
    lines = [f"val_{i}.JPEG\t{WNIDS[label]}\t0\t32\t44\t62\n" for i, label in enumerate((1, 0, 1))]
    (root / "val" / "val_annotations.txt").write_text("".join(lines[::-1]))
    return tmp_path


def test_tiny_imagenet_is_read_as_it_is_unpacked(tiny):
    train, val = imagenet(tiny, size=64)
    assert train.pictures.files[:2] == (
        f"{WNIDS[0]}/images/{WNIDS[0]}_0.JPEG",
        f"{WNIDS[0]}/images/{WNIDS[0]}_1.JPEG",
    )
    assert (train.class_names, train.pictures.y.tolist()) == (WNIDS[:2], [0, 0, 0, 1, 1, 1])
    assert (val.pictures.files, val.y.tolist()) == (
        ("images/val_0.JPEG", "images/val_1.JPEG", "images/val_2.JPEG"),
        [1, 0, 1],
    )
    assert next(train.batches(0, 0, 6))[0].shape == (6, 64, 64, 3)
    assert [len(x) for x in val.in_order(2)] == [2, 1]
    folder = tiny / "tiny-imagenet-200" / "val"
    for names, y in ((None, [1, 0, 1]), (WNIDS[:2], [1, 0, 1]), (WNIDS[1::-1], [0, 1, 0])):
        assert image_test(folder, names, size=8).y.tolist() == y


def test_a_table_of_labels_that_does_not_fit_is_told(tiny):
    table = tiny / "tiny-imagenet-200" / "val" / "val_annotations.txt"
    whole = table.read_text()
    for text, message in (
        (whole.replace(WNIDS[1], "n9"), r"line 1: 'n9' is none of the 2 classes of training"),
        (
            whole + f"val_7.JPEG\t{WNIDS[0]}\n",
            r"line 4: there is no picture 'val_7\.JPEG' in .*images",
        ),
        (whole.partition("\n")[2], r"no line for 1 of 3 pictures, 'val_2\.JPEG' the first"),
        ("", r"no line for 3 of 3 pictures, 'val_0\.JPEG' the first"),
    ):
        table.write_text(text)
        with pytest.raises(DataError, match=message):
            imagenet(tiny)
    table.write_bytes(b"\xff\t\n")
    with pytest.raises(DataError, match="cannot be read as a text with a label for each picture"):
        imagenet(tiny)


def test_a_class_without_pictures_says_what_is_in_it_and_advises_no_deleting(tmp_path):
    lay(tmp_path, ("a", "b"), 1)
    (tmp_path / "b" / "b_0.JPEG").rename(tmp_path / "b" / "b_0.heic")
    with pytest.raises(
        DataError,
        match=r"no pictures .* in the class folder b\. In b there is 1 \.heic file \(b_0\.heic\)\. Convert them",
    ) as said:
        image_train(tmp_path)
    assert "delete" not in str(said.value).lower()
    (tmp_path / "b" / "photos").mkdir()
    with pytest.raises(
        DataError,
        match=r"Pictures lie directly in .*/b, or in a folder images in it; found there: 1 \.heic file \(b_0\.heic\), 1 folder \(photos\)",
    ):
        image_train(tmp_path)


def test_the_environment_and_other_layouts_are_looked_at(folders, tmp_path, alone, monkeypatch):
    monkeypatch.setenv("JAXTICKETS_DATA", str(tmp_path))
    (tmp_path / "ILSVRC" / "Data").mkdir(parents=True)
    os.symlink(folders, tmp_path / "ILSVRC" / "Data" / "CLS-LOC")
    assert imagenet()[0].fingerprint() == imagenet(folders)[0].fingerprint()


@pytest.mark.parametrize("numbers", [False, True])
def test_a_flat_val_folder_is_labelled_by_the_official_text(tmp_path, numbers):
    lay(tmp_path / "train", WNIDS, 1)
    (tmp_path / "val").mkdir()
    for i in range(4):
        noise(i).save(tmp_path / "val" / f"ILSVRC2012_val_{i + 1:08d}.JPEG")
    kit = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    truth = kit / "ILSVRC2012_validation_ground_truth.txt"
    if numbers:
        truth.write_text("3\n1\n2\n3\n")
        with pytest.raises(DataError, match=r"meta\.mat, which says what they mean, is missing"):
            imagenet(tmp_path)
        # The kit's numbers are in another order than the names; a class with children is none of the leaves.
        kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
        rows = [
            (1, WNIDS[2], "gold fish", 0),
            (2, WNIDS[0], "tench", 0),
            (3, WNIDS[1], "shark", 0),
            (4, "n00001740", "entity", 3),
        ]
        savemat(kit / "meta.mat", {"synsets": np.array(rows, dtype=kinds)[:, None]})
        expected = [1, 2, 0, 1]
    else:
        truth.write_text("\n".join([WNIDS[1], WNIDS[2], WNIDS[0], WNIDS[1]]))
        expected = [1, 2, 0, 1]
    val = imagenet(tmp_path, size=8)[1]
    assert val.y.tolist() == expected
    assert val.pictures.files[0] == "ILSVRC2012_val_00000001.JPEG"
    assert [len(x) for x in val.in_order(3)] == [3, 1]
    truth.write_text("4\n1\n2\n3\n" if numbers else "\n".join(["n99999999", *WNIDS]))
    with pytest.raises(DataError, match=r"none of the 3 classes of training"):
        imagenet(tmp_path)
    truth.write_text("1\n2\n")
    with pytest.raises(DataError, match="2 labels for the 4 pictures"):
        imagenet(tmp_path)


def test_imagenet_a_says_which_200_of_the_classes_its_labels_are(tmp_path):
    names = [f"n{i:08d}" for i in range(1000)]
    some = sorted(np.random.default_rng(0).choice(1000, 200, replace=False).tolist())
    raw = saved(noise(0, 8, 8), "JPEG")
    for i in some:
        (tmp_path / "imagenet-a" / names[i]).mkdir(parents=True)
        (tmp_path / "imagenet-a" / names[i] / "0.jpg").write_bytes(raw)
    found = imagenet_a(tmp_path, names, size=8)
    assert found.classes is not None
    assert found.classes.tolist() == some
    assert found.y.tolist() == list(range(200))
    assert (found.num_classes, found.class_names) == (200, tuple(names[i] for i in some))
    # The network's classes may be in any order: labels follow them.
    back = imagenet_a(tmp_path, names[::-1], size=8)
    assert back.classes is not None
    assert [names[::-1][back.classes[label]] for label in back.y] == [
        file.split("/")[0] for file in back.pictures.files
    ]
    with pytest.raises(
        DataError, match=r"imagenet-a: has the class folder n\d+, which training has not"
    ):
        imagenet_a(tmp_path, [name for name in names if name != names[some[7]]])
    shutil.rmtree(tmp_path / "imagenet-a" / names[some[0]])
    with pytest.raises(DataError, match=r"199 class folders, and ImageNet-A has 200.*image_test"):
        imagenet_a(tmp_path, names)
    # All classes, in the network's own order, are no restriction.
    lay(tmp_path / "all", ("a", "b"), 1)
    whole = image_test(tmp_path / "all", ("b", "a"), size=8)
    assert (whole.classes, whole.y.tolist(), whole.class_names) == (None, [1, 0], ("b", "a"))


def test_the_fingerprint_is_of_files_and_views_and_of_nothing_else(folders, tmp_path):
    train = image_train(folders / "train", size=16)
    moved = tmp_path / "moved"
    lay(moved, WNIDS, 7)
    same = [
        image_train(moved, size=16),
        dataclasses.replace(train, workers=0),
        image_train(folders / "train", size=16),
    ]
    assert {other.fingerprint() for other in same} == {train.fingerprint()}
    changes = [
        {"size": 17},
        {"scale": (0.1, 1.0)},
        {"ratio": (1, 1)},
        {"flip": False},
        {"interpolation": "bicubic"},
        {"std": (1.0, 1.0, 1.0)},
    ]
    found = {dataclasses.replace(train, **change).fingerprint() for change in changes} | {
        train.fingerprint()
    }
    assert len(found) == 1 + len(changes)
    with (moved / WNIDS[0] / f"{WNIDS[0]}_0.JPEG").open("ab") as file:
        file.write(b"\0")  # another size
    assert image_train(moved, size=16).fingerprint() not in found
    val = imagenet(folders, size=16)[1]
    assert dataclasses.replace(val, resize=20).fingerprint() != val.fingerprint()
    assert dataclasses.replace(val, classes=np.arange(3)).fingerprint() != val.fingerprint()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, r"size is a number of pixels, an integer >= 1; got 0"),
        ({"size": 2.5}, r"size is a number of pixels"),
        ({"workers": -1}, r"workers is a number of threads, an integer >= 0; got -1"),
        ({"interpolation": "nearest"}, r"interpolation is one of bilinear, bicubic; got 'nearest'"),
        ({"scale": (0.5, 1.5)}, r"scale is two rising shares in \(0, 1\]"),
        ({"ratio": (2, 1)}, r"ratio is two rising positive numbers"),
        ({"std": (1.0, 1.0, 0.0)}, r"one value for each of 3 channels, std > 0"),
    ],
)
def test_settings_that_cannot_be(folders, settings, message):
    with pytest.raises(DataError, match=message):
        image_train(folders / "train", **settings)


def test_a_crop_larger_than_the_resized_picture_is_refused(folders):
    with pytest.raises(DataError, match=r"resize=16, of which size=20 cannot be cut"):
        imagenet(folders, size=20, resize=16)


def test_without_the_extra_it_says_what_to_install(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxtickets\[vision\]'"):
        image_train(folders / "train")
