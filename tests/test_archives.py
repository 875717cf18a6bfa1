"""Archives that lie: what they say of their members is held against what is there, before it is read, kept or repeated."""

import io
import tarfile
import zipfile

import pytest

from jaxtickets.files import archives
from jaxtickets.files.archives import open_tar, open_zip, stored


def zipped(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def read(path, name="a"):
    with open_zip(path) as archive:
        return stored(archive, name)


def changed(path, signature, offset, new):
    """The archive with some bytes of its first header of that kind changed."""
    raw = bytearray(path.read_bytes())
    at = raw.index(signature) + offset
    raw[at : at + len(new)] = new
    path.write_bytes(raw)
    return path


def test_members_are_what_was_written(tmp_path):
    members = {"a": b"one", "b/c": bytes(range(256)) * 500, "empty": b""}
    path = zipped(tmp_path / "a.zip", members)
    assert {name: read(path, name) for name in members} == members


DIRECTORY, MEMBER, END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"


@pytest.mark.parametrize(
    ("signature", "offset", "new", "words"),
    [
        (DIRECTORY, 8, b"\x01", "'a' is encrypted"),
        (DIRECTORY, 10, b"\x63", "'a' is compressed"),
        (
            DIRECTORY,
            24,
            b"\xff\xff\xff\x7f",
            "'a' is said to have 2,147,483,647 bytes, in a file of",
        ),
        (DIRECTORY, 20, b"\x01", "'a' is said to have 3 bytes"),
        (DIRECTORY, 16, b"\0\0\0\0", "Bad CRC-32"),
        (DIRECTORY, 42, b"\x05", "."),
        (MEMBER, 26, b"\xff", "."),
        (END, 0, b"X", "not a zip file"),
        (END, 12, b"\xff\xff\xff\x7f", "."),
        (END, 16, b"\xff\xff\xff\x7f", "."),
    ],
)
def test_a_header_that_lies_is_refused_as_damage(tmp_path, signature, offset, new, words):
    path = changed(zipped(tmp_path / "a.zip", {"a": b"one"}), signature, offset, new)
    with pytest.raises(zipfile.BadZipFile, match=words):
        read(path)


def test_a_member_that_is_missing_is_named_in_short(tmp_path):
    with pytest.raises(zipfile.BadZipFile, match="there is no 'xxx") as error:
        read(zipped(tmp_path / "a.zip", {"a": b""}), "x" * 10**6)
    assert len(str(error.value)) < 200


def test_a_directory_larger_than_any_real_one_is_not_read(tmp_path, monkeypatch):
    path = zipped(tmp_path / "a.zip", {f"{i}": b"" for i in range(100)})
    assert read(path, "7") == b""
    monkeypatch.setattr(archives._Limited, "most", 3000)
    with pytest.raises(zipfile.BadZipFile, match="at most 3,000 are read"):
        read(path, "7")


def listed(raw, streamed=False):
    with (
        open_tar(io.BytesIO(raw)) if streamed else tarfile.open(fileobj=io.BytesIO(raw)) as archive
    ):
        return [member.name for member in archive]


def tarred(*members, form=tarfile.PAX_FORMAT):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for info in members:
            archive.addfile(info, io.BytesIO(b"z" * info.size))
    return file.getvalue()


def member(name="a", **more):
    info = tarfile.TarInfo(name)
    for field, value in more.items():
        setattr(info, field, value)
    return info


def header(kind, size):
    """A header as old tar writes it, numbers too large for octal digits in base 256."""
    raw = bytearray(tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT))
    raw[124:136] = (
        b"\x80" + size.to_bytes(11, "big")
        if size >= 0
        else b"\xff" * 4 + size.to_bytes(8, "big", signed=True)
    )
    raw[156:157] = kind
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format_is_listed(form, tmp_path):
    raw = tarred(member("a", size=700), member("f/" + "x" * 90), member("ä", mtime=1.5), form=form)
    (tmp_path / "a.tar").write_bytes(raw)
    with open_tar(path=tmp_path / "a.tar") as archive:
        assert (
            [found.name for found in archive]
            == listed(raw)
            == listed(raw, streamed=True)
            == ["a", "f/" + "x" * 90, "ä"]
        )


TARS = {
    "a length below 0": (header(b"0", -1024), "a member of -1,024 bytes"),
    "attributes that say so": (
        tarred(member(size=10, pax_headers={"size": "-512"})),
        "a length below 0",
    ),
    "a name of a gigabyte": (
        header(tarfile.GNUTYPE_LONGNAME, 2**30),
        "a name or attributes of 1,073,741,824 bytes",
    ),
    "attributes of ten": (
        header(tarfile.XHDTYPE, 10 * 2**30),
        "a name or attributes of 10,737,418,240 bytes",
    ),
    "global ones": (header(tarfile.XGLTYPE, 2**40), "a name or attributes of"),
    "too many": (header(b"0", 0) * 3000, "more than 2,000 headers"),
}


@pytest.mark.parametrize("name", TARS)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_tar_header_that_lies_is_refused(tmp_path, name, streamed):
    raw, words = TARS[name]
    raw += bytes(4096)
    (tmp_path / "a.tar").write_bytes(raw)
    with (
        pytest.raises(tarfile.TarError, match=words),
        open_tar(io.BytesIO(raw)) if streamed else open_tar(path=tmp_path / "a.tar") as archive,
    ):
        list(archive)


def test_the_counter_is_of_one_archive(tmp_path):
    raw = header(b"0", 0) * 1500 + bytes(1024)
    for _ in range(3):
        assert len(listed(raw, streamed=True)) == 1500
