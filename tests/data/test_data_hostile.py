"""Data files made to crash, hang or fill the memory of whoever reads them: all are a `DataError`, soon and in a few words."""

import gzip
import io
import pickle
import random
import struct
import tarfile
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from jaxtickets import pickles
from jaxtickets.data import DataError, files
from jaxtickets.data import image_files as views
from jaxtickets.data.files import read_archive
from jaxtickets.data.flat_val import _names_of_numbers
from jaxtickets.data.mat import variables
from jaxtickets.data.npy import in_archive, in_folder
from jaxtickets.data.plain_pickle import read_plain_pickle
from jaxtickets.data.published import CIFAR10
from jaxtickets.data.svhn_files import read_mat
from jaxtickets.data.tfrecords import parse_pickled

SECONDS = 20  # of this process; each takes less than one on a machine that does nothing else


def refused(read, *arguments, match=None):
    """The message of the error, which has to come soon, need little memory and be short."""
    started = time.process_time()
    with pytest.raises(DataError, match=match) as error:
        read(*arguments)
    assert time.process_time() - started < SECONDS
    assert len(str(error.value)) < 1000
    return str(error.value)


# Pickles


def shared(levels=60):
    """One list in another, ten times, and so on: 10^levels when it is written out."""
    links = b"".join(
        b"](" + (b"h" + bytes([i])) * 10 + b"eq" + bytes([i + 1]) for i in range(levels)
    )
    return b"(]q\0" + links + b"t"


def text(words):
    return b"X" + len(words).to_bytes(4, "little") + words


BOMBS = {
    "named": b"\x80\2" + shared() + b"h\1\x93.",
    "called": b"\x80\2cnumpy\ndtype\n" + shared() + b"\x85R.",
    "dtype": b"\x80\2cnumpy\ndtype\n(U\2u1K\0K\1tR(K\3" + shared() + b"tb.",
    "shape": b"\x80\2cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85U\1btR(K\1("
    + shared()
    + b"tcnumpy\ndtype\n(U\2u1tR\x89U\1atb.",
    "a key": b"\x80\2}" + shared() + b"Ns.",
    "the whole": b"\x80\2" + shared() + b".",
    "data": b"\x80\2}U\4data" + shared() + b"s.",
    "labels": b"\x80\2}(U\4dataN" + text(b"labels") + shared() + b"u.",
    "a large shape": b"\x80\2cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85U\1btR(K\1("
    + (b"\x8a\xff" + b"\xff" * 254 + b"\x7f") * 1000
    + b"tcnumpy\ndtype\n(U\2u1tR\x89U\1atb.",
    "nested lists": b"\x80\2" + b"]" * 50_000 + b"a" * 49_999 + b".",
    "nested tuples in data": b"\x80\2}U\4data)" + b"\x85" * 50_000 + b"s.",
    "a long name": b"\x80\2c" + b"x" * 10**6 + b"\n" + b"y" * 10**6 + b"\n.",
    "an integer of 5,000 digits": b"L" + b"9" * 5000 + b"L\n.",
    "a place far away": b"\x80\2]p" + b"9" * 40 + b"\n.",
    "a place below 0": b"\x80\2]g-1\n.",
    "a text without end": b"\x80\4\x8d" + b"\xff" * 8 + b".",
    "bytes of exabytes": b"\x80\4\x8e" + b"\xff" * 7 + b"\x7f.",
    "a byte array of exabytes": b"\x80\5\x96" + b"\xff" * 7 + b"\x7f.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_pickles_that_grow_when_they_are_looked_at_are_refused_soon_and_shortly(name):
    refused(parse_pickled, CIFAR10, BOMBS[name], "batch", 3, match="^batch: ")


def test_a_pickle_of_more_instructions_than_any_real_one_is_refused(monkeypatch):
    monkeypatch.setattr(pickles, "MOST_INSTRUCTIONS", 100)
    assert read_plain_pickle(b"N" * 98 + b"}.", "batch") == {}
    refused(
        read_plain_pickle, b"N" * 101 + b"}.", "batch", match="it has more than 100 instructions"
    )


def colliding(count, key):
    return (
        b"\x80\2}("
        + b"".join(
            b"\x8a\x10" + key(i).to_bytes(16, "little", signed=True) + b"N" for i in range(count)
        )
        + b"u."
    )


def test_integer_keys_of_one_hash_are_refused():
    """2^61 - 1 divides all of them, so that a dictionary puts them into one place; so do keys of which the low bits are alike."""
    assert hash((2**61 - 1) * 7) == 0
    refused(
        read_plain_pickle,
        colliding(100_000, lambda i: (2**61 - 1) * (i + 1)),
        "batch",
        match="a key or a place is",
    )
    refused(
        read_plain_pickle,
        b"\x80\2](" + b"".join(b"Np%d\n" % ((2**61 - 1) * (i + 1)) for i in range(1000)) + b"e.",
        "batch",
    )
    started = time.process_time()
    found = read_plain_pickle(colliding(30_000, lambda i: i << 16), "batch")
    assert len(found) == 30_000
    assert time.process_time() - started < SECONDS


def test_one_text_is_not_encoded_again_and_again():
    long = text(b"x" * 100_000) + b"q\0"
    again = (
        b"c_codecs\nencode\nq\1](h\1h\0"
        + text(b"latin1")
        + b"\x86q\2R"
        + b"h\1h\2R" * 20_000
        + b"e"
    )
    tracemalloc.start()
    refused(
        read_plain_pickle,
        b"\x80\2}U\1a" + long + b"sU\1b" + again + b"s.",
        "batch",
        match="calls encode in a way",
    )
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_protocol_5_is_read():
    """Arrays, byte arrays and frames; buffers that lie beside the pickle are not."""
    planes = np.random.default_rng(0).integers(0, 256, (3, 3072), dtype=np.uint8)
    value = {
        "data": planes,
        "labels": [3, 1, 2],
        "filenames": ["ä", "b" * 300],
        "raw": bytearray(b"xyz"),
        "other": np.asfortranarray(planes[:, :5]),
    }
    raw = pickle.dumps(value, 5)
    assert b"_frombuffer" in raw
    found = read_plain_pickle(raw, "batch")
    np.testing.assert_array_equal(found.pop("data"), planes)
    np.testing.assert_array_equal(found.pop("other"), planes[:, :5])
    assert found == {"labels": [3, 1, 2], "filenames": ["ä", "b" * 300], "raw": b"xyz"}
    x, y = parse_pickled(CIFAR10, raw, "batch", 3)
    np.testing.assert_array_equal(x.transpose(0, 3, 1, 2).reshape(3, -1), planes)
    assert y.tolist() == [3, 1, 2]
    buffers = []
    beside = pickle.dumps({"data": planes}, 5, buffer_callback=buffers.append)
    assert buffers
    refused(read_plain_pickle, beside, "batch", match="uses the instruction NEXT_BUFFER")


def test_damaged_pickles_of_every_protocol_are_read_or_refused():
    rng = random.Random(0)
    value = {
        "data": np.zeros((3, 3072), np.uint8),
        "labels": [3, 1, 2],
        "filenames": ["a", "b", "c"],
    }
    wholes = [pickle.dumps(value, protocol) for protocol in range(6)]
    outcomes = fuzz(rng, wholes, lambda raw: parse_pickled(CIFAR10, raw, "batch", 3), 1500)
    assert outcomes["refused"] > 500


def damaged(rng, raw):
    """One to four kinds of damage: bits, bytes, lengths, pieces lost, doubled and moved."""
    raw = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(raw)) if rng.random() < 0.5 else rng.randrange(min(len(raw), 300))
        match rng.randrange(6):
            case 0:
                raw[at] ^= 1 << rng.randrange(8)
            case 1:
                raw[at] = rng.choice((0, 127, 128, 255))
            case 2:
                raw[at : at + 4] = rng.choice(
                    (0, 2**31 - 1, 2**31, 2**32 - 1, rng.randrange(2**32))
                ).to_bytes(4, "little")
            case 3:
                del raw[at : at + rng.choice((1, 4, 64))]
            case 4:
                raw[at:at] = raw[: rng.choice((8, 64))]
            case 5:
                del raw[max(at, 1) :]
        raw = raw or bytearray(b"\0")
    return bytes(raw)


def fuzz(rng, wholes, read, count):
    outcomes = {"read": 0, "refused": 0}
    for _ in range(count):
        try:
            read(damaged(rng, rng.choice(wholes)))
            outcomes["read"] += 1
        except DataError as error:
            outcomes["refused"] += 1
            assert len(str(error)) < 1000
    return outcomes


# Archives


def tarred(members, path, level=1):
    with tarfile.open(path, "w:gz", compresslevel=level) as archive:
        for name, raw in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return path


def test_an_archive_is_not_unpacked_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_UNPACKED", 2**21)
    path = tarred({"readme": b"", "zeros": bytes(2**22), "f/a": b"x"}, tmp_path / "a.tar.gz")
    assert path.stat().st_size < 20_000
    tracemalloc.start()
    refused(
        lambda: list(read_archive(path, "f", ("a",), 10)),
        match=r"unpacked it has more than 2,097,152 bytes. Fetch it again",
    )
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()
    with gzip.open(path, "wb", 1) as file:  # after the archive's own end
        file.write(
            gzip.decompress(tarred({"f/a": b"x"}, tmp_path / "b.tar.gz").read_bytes())
            + bytes(2**22)
        )
    refused(lambda: list(read_archive(path, "f", ("a",), 10)), match="unpacked it has more than")


def test_a_member_of_2_to_the_90_bytes_is_not_waited_for(tmp_path):
    raw = bytearray(
        gzip.decompress(tarred({"b": b"", "f/a": b"x"}, tmp_path / "a.tar.gz").read_bytes())
    )
    raw[124:136] = b"\x80" + (2**87).to_bytes(11, "big")
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(bytes(raw)))
    refused(
        lambda: list(read_archive(tmp_path / "a.tar.gz", "f", ("a",), 10)),
        match="a member ends after the archive does",
    )
    (tmp_path / "a.tar").write_bytes(bytes(raw))
    refused(
        in_archive,
        tmp_path / "a.tar",
        "f",
        ("a",),
        match="a damaged, incomplete or compressed archive",
    )


def test_damaged_archives_are_read_or_refused(tmp_path):
    rng = random.Random(1)
    whole = gzip.decompress(
        tarred(
            {"f/a": b"x" * 600, "f/" + "n" * 90: b"", "f/b": b"y"}, tmp_path / "a.tar.gz"
        ).read_bytes()
    )

    def packed(raw):
        (tmp_path / "a.tar.gz").write_bytes(gzip.compress(raw, 1))
        return list(read_archive(tmp_path / "a.tar.gz", "f", ("a", "b"), 700))

    def plain(raw):
        (tmp_path / "a.tar").write_bytes(raw)
        return in_archive(tmp_path / "a.tar", "f", ("a", "b"))

    assert fuzz(rng, [whole[:4096]], packed, 300)["refused"] > 30
    fuzz(rng, [whole[:4096]], plain, 300)


# Arrays


def test_damaged_arrays_are_read_or_refused(tmp_path):
    rng = random.Random(2)
    np.save(tmp_path / "a.npy", np.arange(12, dtype=np.uint8).reshape(4, 3))

    def read(raw):
        (tmp_path / "a.npy").write_bytes(raw)
        return in_folder(tmp_path, ["a.npy"])["a.npy"].rows(1, 2, "|u1", (4, 3))

    assert fuzz(rng, [(tmp_path / "a.npy").read_bytes()], read, 500)["refused"] > 200


# MATLAB files


def matlab(packed, **content):
    file = io.BytesIO()
    savemat(file, content, do_compression=packed)
    return file.getvalue()


IMAGES = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 2), dtype=np.uint8)
DIGITS = np.array([[10], [1]], np.uint8)
KIT = np.array(
    [(1, "n2", "gold fish", 0), (2, "n1", "hai, Hai", 0), (3, "n3", "", 2)],
    [(n, "O") for n in ("ILSVRC2012_ID", "WNID", "words", "num_children")],
)


@pytest.mark.parametrize("packed", [False, True])
def test_variables_are_read_as_scipy_reads_them(tmp_path, packed):
    values = {
        name: (np.arange(6).reshape(2, 3) * 3.0).astype(name)
        for name in ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
    }
    values |= {
        "small": np.float64([[7]]),
        "empty": np.zeros((0, 3)),
        "deep": np.arange(24.0).reshape(2, 3, 2, 2),
        "large": np.full((3, 1), 1e9),
    }
    path = tmp_path / "a.mat"
    path.write_bytes(matlab(packed, **values, words="naïve", kit=KIT[:, None]))
    theirs, ours = loadmat(path), {found.name: found for found in variables(path)}
    assert set(ours) == set(values) | {"words", "kit"}
    for name, value in values.items():
        found = ours[name].read()
        np.testing.assert_array_equal(found, theirs[name])
        assert (found.dtype, found.shape, ours[name].kind, ours[name].shape) == (
            value.dtype,
            value.shape,
            value.dtype.name,
            value.shape,
        )
    assert ours["words"].read() == theirs["words"].item() == "naïve"
    rows = ours["kit"].read()
    assert [row["WNID"] for row in rows] == ["n2", "n1", "n3"]
    assert [row["ILSVRC2012_ID"].item() for row in rows] == [1, 2, 3]
    assert [row["words"] for row in rows] == ["gold fish", "hai, Hai", ""]


def test_big_endian_files_are_read(tmp_path):
    """As a machine of the other byte order writes one: an element of numbers by hand."""

    def element(kind, body):
        return struct.pack(">II", kind, len(body)) + body + bytes(-len(body) % 8)

    body = (
        element(6, struct.pack(">II", 9, 0))
        + element(5, struct.pack(">ii", 2, 1))
        + element(1, b"x")
        + element(4, struct.pack(">HH", 258, 3))
    )
    raw = (
        b"MATLAB 5.0 MAT-file".ljust(124)
        + b"\1\0MI"
        + element(14, body.replace(struct.pack(">II", 9, 0), struct.pack(">II", 11, 0)))
    )
    (tmp_path / "a.mat").write_bytes(raw)
    (found,) = variables(tmp_path / "a.mat")
    assert found.read().tolist() == loadmat(tmp_path / "a.mat")["x"].tolist() == [[258], [3]]


def repacked(raw, rng):
    """The file with one of its packed elements damaged before it is packed again, so that the checksum is right."""
    elements, at = [], 128
    while at < len(raw):
        kind, size = struct.unpack("<II", raw[at : at + 8])
        elements.append(zlib.decompress(raw[at + 8 : at + 8 + size]))
        at += 8 + size
    number = rng.randrange(len(elements))
    elements[number] = damaged(rng, elements[number])
    return raw[:128] + b"".join(
        struct.pack("<II", 15, len(part)) + part
        for part in (zlib.compress(body, 1) for body in elements)
    )


def test_damaged_files_of_svhn_are_read_or_refused_and_never_end_the_process(tmp_path):
    rng = random.Random(3)
    path, kit = tmp_path / "test_32x32.mat", tmp_path / "meta.mat"

    def images(raw):
        path.write_bytes(raw)
        x, y = read_mat(path, 2)
        assert (x.shape, x.dtype) == ((2, 32, 32, 3), np.uint8)
        assert set(y.tolist()) <= set(range(10))

    def names(raw):
        kit.write_bytes(raw)
        assert all(
            type(number) is int and type(name) is str
            for number, name in _names_of_numbers(tmp_path / "truth.txt").items()
        )

    wholes = [matlab(packed, X=IMAGES, y=DIGITS) for packed in (False, True)]
    kits = [matlab(packed, synsets=KIT[:, None]) for packed in (False, True)]
    images(wholes[0]), names(kits[1])
    assert fuzz(rng, wholes, images, 500)["refused"] > 100
    assert fuzz(rng, kits, names, 500)["refused"] > 100
    inner = {"read": 0, "refused": 0}
    for _ in range(300):
        for whole, read in ((wholes[1], images), (kits[1], names)):
            try:
                read(repacked(whole, rng))
                inner["read"] += 1
            except DataError:
                inner["refused"] += 1
    assert min(inner.values()) > 50


def test_a_variable_is_not_unpacked_beyond_its_size(tmp_path):
    """65 kilobytes that unpack to 64 megabytes, under the name of the labels."""
    whole = matlab(False, y=DIGITS)[128:]
    bomb = zlib.compress(whole + bytes(2**26), 9)
    head = matlab(True, X=IMAGES)
    path = tmp_path / "test_32x32.mat"
    path.write_bytes(head + struct.pack("<II", 15, len(bomb)) + bomb)
    del whole
    tracemalloc.start()
    refused(read_mat, path, 2, match="a variable is cut short, or larger than the")
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


# Pictures


def test_a_jpeg_of_a_thousand_scans_is_refused(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG", progressive=True)
    raw = file.getvalue()
    path = tmp_path / "a.JPEG"
    path.write_bytes(raw)
    assert views.decode(str(path)).size == (16, 16)
    last = raw.rindex(b"\xff\xda")
    path.write_bytes(raw[:last] + raw[last:-2] * 1000 + raw[-2:])
    refused(views.decode, str(path), match=r"a JPEG of 1,\d+ scans")
