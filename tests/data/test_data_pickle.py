"""Nothing in a pickle is executed: names, instructions and arguments that plain data does not need are refused."""

import os
import pickle

import numpy as np
import pytest

from jaxtickets.data import DataError
from jaxtickets.data.cifar import read
from jaxtickets.data.plain_pickle import read_plain_pickle
from jaxtickets.data.published import CIFAR10, CIFAR100


class Shell:
    """Runs a command when it is unpickled by the standard library."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_reader_agrees_with_the_standard_library(cpickle):
    planes = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)
    raw = cpickle(planes, [3, 1, 9, 0], "labels")
    ours, theirs = read_plain_pickle(raw, "batch"), pickle.loads(raw, encoding="bytes")
    assert list(ours) == list(theirs) == [b"batch_label", b"labels", b"data", b"filenames"]
    np.testing.assert_array_equal(ours.pop(b"data"), theirs.pop(b"data"))
    assert ours == theirs


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_plain_values(protocol):
    value = {
        "a": [1, -2, 2**40, 2.5, None, True, False],
        "b": {"c": (1, (2, 3), ())},
        5: "ä",
        "d": [],
        "e": {},
        "f": b"\xff\0" if protocol > 1 else 0,
    }
    assert read_plain_pickle(pickle.dumps(value, protocol), "value") == value


@pytest.mark.parametrize("dtype", ["u1", "<i4", ">i8", "<f4"])
def test_arrays_of_either_numpy(dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    raw = pickle.dumps({"a": array}, 2)
    for module in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        found = read_plain_pickle(raw.replace(b"numpy._core.multiarray", module), "array")["a"]
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "nest",
    [
        lambda s: s,
        lambda s: {"data": s},
        lambda s: {"labels": [1, (s,)]},
        lambda s: {"data": np.array([s], object)},
    ],
)
def test_shell_is_refused(tmp_path, protocol, nest):
    marker = tmp_path / "executed"
    raw = pickle.dumps(nest(Shell(f"touch {marker}")), protocol)
    with pytest.raises(DataError, match="refused, nothing in it was executed"):
        read_plain_pickle(raw, "batch")
    assert not marker.exists()
    pickle.loads(raw)
    assert marker.exists(), (
        "the attack must work on the standard library, or this test proves nothing"
    )


@pytest.mark.parametrize("published", [CIFAR10, CIFAR100], ids=["cifar10", "cifar100"])
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_shell_in_a_data_set_is_refused(alone, tmp_path, archive_of, published, packed):
    marker = tmp_path / "executed"
    raw = pickle.dumps({b"data": Shell(f"touch {marker}"), published.label_key: [0]}, 2)
    if packed:
        archive_of(
            tmp_path / published.archives[1],
            {f"{published.python_folder}/{published.test_files[0]}": raw},
        )
    else:
        (tmp_path / published.python_folder).mkdir()
        (tmp_path / published.python_folder / published.test_files[0]).write_bytes(raw)
    with pytest.raises(DataError, match=r"system'\. A CIFAR file holds lists"):
        read(published, "test", tmp_path, download=False)
    assert not marker.exists()


GADGETS = {
    "eval": b"cbuiltins\neval\n(U\x011tR.",
    "python 2 builtin": b"c__builtin__\neval\n(U\x011tR.",
    "inst": b"(S'1'\nibuiltins\neval\n.",
    "obj": b"(cbuiltins\neval\nU\x011o.",
    "newobj": b"\x80\x02cnumpy\nndarray\nK\x01\x85\x81.",
    "newobj_ex": b"\x80\x04\x8c\x05numpy\x8c\x07ndarray\x93)}\x92.",
    "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.",
    "stack global of a list": b"\x80\x04]\x8c\x04eval\x93.",
    "numpy runs a string": b"cnumpy.testing._private.utils\nrunstring\n(U\x011}tR.",
    "numpy loads a pickle": b"cnumpy\nload\n(U\x01xtR.",
    "numpy opens a file": b"cnumpy\nmemmap\n(U\x01xtR.",
    "numpy of another name": b"cnumpy.core.multiarray\nfromfile\n(U\x01xtR.",
    "reconstruct of another class": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\nK\x00\x85U\x01btR.",
    "reconstruct without arguments": b"cnumpy.core.multiarray\n_reconstruct\n)R.",
    "call of a class": b"cnumpy\nndarray\n(K\x01\x85tR.",
    "call of a result": b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR)R.",
    "call of text": b"U\x04eval)R.",
    "arguments that are a list": b"cnumpy\ndtype\n]R.",
    "dtype of objects": b"cnumpy\ndtype\n(U\x02O8K\x00K\x01tR.",
    "dtype of records": b"cnumpy\ndtype\n(]tR.",
    "state of a name": b"cnumpy\nndarray\n}U\x01aK\x01sb.",
    "state of a dictionary": b"}}b.",
    "state of a dtype": b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR}b.",
    "byte order": b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01ONNNtb.",
    "array without bytes": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR(K\x01K\x01\x85N\x89]tb.",
    "another codec": b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00zlbtR.",
    "decode": b"c_codecs\ndecode\n(U\x01aU\x03hextR.",
    "persistent id": b"P1\n.",
    "binary persistent id": b"K\x01Q.",
    "extension": b"\x80\x02\x82\x01.",
    "out-of-band buffer": b"\x80\x05\x97.",
    "set": b"\x80\x04\x8f.",
    "key that is a list": b"}]K\x01s.",
    "item of a list": b"]K\x01K\x01s.",
    "append to a dictionary": b"}K\x01a.",
    "append to a name": b"cnumpy\nndarray\nK\x01a.",
}


@pytest.mark.parametrize("raw", GADGETS.values(), ids=GADGETS)
def test_gadgets_are_refused(raw):
    with pytest.raises(DataError, match="refused, nothing in it was executed"):
        read_plain_pickle(raw, "batch")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b".",
        b"}",
        b"K",
        b"t.",
        b"\x85.",
        b"h\x05.",
        b"u.",
        b"a.",
        b"R.",
        b"q\x01.",
        b"\xff",
        b"I1x\n.",
        b"}."[:1] + b"\x80\x09",
    ],
)
def test_broken_pickles_are_named(raw):
    with pytest.raises(DataError, match=r"^batch: "):
        read_plain_pickle(raw, "batch")


def test_damage_anywhere_gives_a_value_or_a_data_error(cpickle):
    """500 truncations and 1,500 changed bytes: no other exception, whatever the damage."""
    raw = cpickle(np.zeros((1, 64), np.uint8), [3], "labels")
    rng = np.random.default_rng(0)
    refused = 0
    for i in range(2000):
        damaged = bytearray(raw[: rng.integers(len(raw))] if i % 4 == 0 else raw)
        if i % 4:
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        try:
            assert isinstance(read_plain_pickle(bytes(damaged), "batch"), dict)
        except DataError:
            refused += 1
    assert refused >= 500
