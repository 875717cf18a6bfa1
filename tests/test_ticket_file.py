"""Ticket files: what is written is read, what was changed is refused, and nothing in a file is run or believed."""

import contextlib
import errno
import hashlib
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import time
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtickets as jt
from jaxtickets import masks
from jaxtickets.errors import TicketFileError
from jaxtickets.task import Task
from jaxtickets.tickets import about
from jaxtickets.tickets.ensemble import Ticket, TicketEnsemble

SHAPES = {"w1": (20, 37), "w2": (37, 3)}


def init(key, x):
    del key
    params = {name: jnp.zeros(shape) for name, shape in SHAPES.items()}
    return {"layer": params, "b": jnp.zeros(3, jnp.bfloat16)}, {
        "stats": [jnp.zeros(3), jnp.zeros((), jnp.int32)]
    }


def apply(params, state, x, train, key):
    del train, key
    return jnp.tanh(x @ params["layer"]["w1"]) @ params["layer"]["w2"] + params["b"].astype(
        jnp.float32
    ) + state["stats"][0], state


def never(*args):
    raise AssertionError


TASK = jt.classification((init, apply), num_classes=3, name="small")


def make(members=2, seed=0, density=0.3):
    rng = np.random.default_rng(seed)
    tickets = []
    for i in range(members):
        mask = {name: rng.random(shape) < density for name, shape in SHAPES.items()}
        params = {
            name: np.where(mask[name], rng.normal(size=shape), 0).astype(np.float32)
            for name, shape in SHAPES.items()
        }
        params["w1"][tuple(np.argwhere(mask["w1"])[0])] = 0.0  # a weight that was just grown
        params["w2"][tuple(np.argwhere(mask["w2"])[-1])] = -0.0
        b = rng.normal(size=3).astype(jnp.bfloat16)
        state = {"stats": [rng.normal(size=3).astype(np.float32), np.array(7 + i, np.int32)]}
        info = {"lineage": i, "train_loss": 0.1 + 0.2, "density": masks.density(mask)}
        tickets.append(
            Ticket({"layer": params, "b": b}, {"layer": mask, "b": np.ones((), bool)}, state, info)
        )
    return TicketEnsemble(
        TASK, tuple(tickets), jax.ShapeDtypeStruct((20,), np.float32), jt.dst(members, 0.7)
    )


def content(ensemble):
    """Everything in an ensemble, as bytes and text."""
    parts = []
    for ticket in ensemble:
        for leaf in jax.tree.leaves((ticket.params, ticket.mask, ticket.model_state)):
            leaf = np.asarray(leaf)
            parts.append((str(leaf.dtype), leaf.shape, leaf.tobytes()))
        parts.append(json.dumps(ticket.info, sort_keys=True))
    return [
        *parts,
        str(ensemble.plan),
        str(ensemble.x_spec),
        str(jax.tree.structure([t[:3] for t in ensemble])),
    ]


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "a.safetensors"
    make().save(path)
    return path


def test_what_is_saved_is_loaded(saved):
    loaded = jt.load(saved, TASK)
    assert content(loaded) == content(make())
    x = np.random.default_rng(1).normal(size=(9, 20)).astype(np.float32)
    np.testing.assert_array_equal(loaded.predict_proba(x), make().predict_proba(x))
    assert loaded.plan == make().plan
    assert [ticket.info for ticket in loaded] == [ticket.info for ticket in make()]


def test_a_survivor_that_is_zero_keeps_its_place_in_the_mask_and_its_sign(saved):
    for ticket in jt.load(saved, TASK):
        survivors = ticket.params["layer"]["w1"][ticket.mask["layer"]["w1"]]
        assert survivors[0] == 0
        assert np.signbit(ticket.params["layer"]["w2"][ticket.mask["layer"]["w2"]][-1])


def test_only_survivors_and_one_bit_per_weight_are_stored(saved):
    head, data = split(saved.read_bytes())
    survivors = sum(masks.count(ticket.mask) for ticket in make())
    bits = 2 * sum((np.prod(shape) + 7) // 8 for shape in SHAPES.values())
    assert len(data) == 4 * survivors + bits + 2 * (
        3 * 2 + 3 * 4 + 4
    )  # bfloat16 biases; batch statistics and a counter
    assert len(data) < 0.35 * 2 * 4 * sum(np.prod(shape) for shape in SHAPES.values())


def test_equal_ensembles_give_equal_bytes_in_every_process(saved, tmp_path):
    script = f"import sys; sys.path.insert(0, {str(__file__.rsplit('/', 1)[0])!r}); from test_ticket_file import make; make().save({str(tmp_path / 'b')!r})"
    subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        env={"PYTHONHASHSEED": "7", "PATH": ""},
        timeout=300,
    )
    assert (tmp_path / "b").read_bytes() == saved.read_bytes()
    assert not list(tmp_path.glob(".*"))  # nothing temporary stays


def test_trees_of_every_kind_come_back(tmp_path):
    for spec in (
        {"a": jax.ShapeDtypeStruct((20,), np.float32)},
        [jax.ShapeDtypeStruct((20,), np.int32)],
        (jax.ShapeDtypeStruct((), bool),),
    ):
        one = TicketEnsemble(TASK, make(1).tickets, spec)
        one.save(tmp_path / "a")
        assert jt.load(tmp_path / "a", TASK).x_spec == spec
        assert jt.load(tmp_path / "a", TASK).plan is None


def split(raw):
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def join(head, data):
    text = json.dumps(head).encode() if not isinstance(head, bytes) else head
    return struct.pack("<Q", len(text)) + text + data


def resealed(saved, change):
    """The file with its metadata or tensors changed by somebody who knows how to compute the digest anew."""
    from safetensors.numpy import load, save

    from jaxtickets.tickets.file_layout import digest

    head, _ = split(saved.read_bytes())
    tensors, about = load(saved.read_bytes()), json.loads(head["__metadata__"]["jaxtickets"])
    changed = change(tensors, about)
    about = about if changed is None else changed
    if isinstance(about, dict):
        about.pop("sha256", None)
        about["sha256"] = digest(
            {name: (t.dtype, t.shape) for name, t in tensors.items()}, tensors.__getitem__, about
        )
    saved.write_bytes(save(tensors, metadata={"jaxtickets": json.dumps(about)}))


def refuses(path, task=TASK, match=None):
    with pytest.raises(TicketFileError, match=match):
        jt.load(path, task)


def test_resealing_without_a_change_is_no_change(saved):
    resealed(saved, lambda tensors, about: None)
    assert content(jt.load(saved, TASK)) == content(make())


def test_a_changed_byte_is_refused_or_changes_nothing(saved):
    """Every byte of the first 600, of the end of the header, and 300 others; one random bit of each, and all of them."""
    raw, rng, same = saved.read_bytes(), random.Random(0), content(make())
    header = 8 + struct.unpack("<Q", raw[:8])[0]
    places = {*range(600), *range(header - 40, header + 40), *rng.sample(range(len(raw)), 300)}
    refused = 0
    for place in sorted(places):
        changed = bytearray(raw)
        changed[place] ^= 1 << rng.randrange(8) if place % 2 else 0xFF
        saved.write_bytes(changed)
        try:
            assert content(jt.load(saved, TASK)) == same, place
        except TicketFileError:
            refused += 1
    assert refused >= len(places) - 40  # header padding, and white space in the JSON


@pytest.mark.slow
def test_every_changed_byte_is_refused_or_changes_nothing(saved):
    raw, same = saved.read_bytes(), content(make())
    for place in range(len(raw)):
        for bit in (0, 5, 7):
            changed = bytearray(raw)
            changed[place] ^= 1 << bit
            saved.write_bytes(changed)
            with contextlib.suppress(TicketFileError):
                assert content(jt.load(saved, TASK)) == same, (place, bit)


def test_a_file_of_any_other_length_is_refused(saved):
    raw, rng = saved.read_bytes(), random.Random(1)
    for length in {*range(20), *rng.sample(range(len(raw)), 200), len(raw) - 1}:
        saved.write_bytes(raw[:length])
        refuses(saved, match="not a ticket file, or is damaged")
    for extra in (b"\0", raw, b"x" * 1000):
        saved.write_bytes(raw + extra)
        refuses(saved)


@pytest.mark.parametrize("length", [0, 1, 2**20, 2**31, 2**60, 2**63, 2**64 - 1])
def test_a_header_length_that_is_a_lie_is_refused(saved, length):
    saved.write_bytes(struct.pack("<Q", length) + saved.read_bytes()[8:])
    refuses(saved)


HEADERS = {
    "not JSON": b"{",
    "a list": b"[]",
    "empty": b"{}",
    "nested": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "a number": b"1",
    "NaN": b'{"a":NaN}',
    "latin": b'{"\xff":1}',
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_is_none_is_refused(saved, name):
    saved.write_bytes(join(HEADERS[name], split(saved.read_bytes())[1]))
    refuses(saved)


def entries(change):
    def apply_to(path):
        head, data = split(path.read_bytes())
        change(head)
        path.write_bytes(join(head, data))

    return apply_to


def first(head):
    return head["0/params/layer/w1"]


LIES = {
    "a huge shape": entries(lambda head: first(head).update(shape=[2**40, 2**40])),
    "a shape that overflows": entries(lambda head: first(head).update(shape=[2**63, 2])),
    "a negative shape": entries(lambda head: first(head).update(shape=[-1])),
    "offsets out of the file": entries(lambda head: first(head).update(data_offsets=[0, 2**50])),
    "offsets that overlap": entries(lambda head: first(head).update(data_offsets=[0, 8])),
    "another dtype": entries(lambda head: first(head).update(dtype="I32")),
    "an unknown dtype": entries(lambda head: first(head).update(dtype="O")),
    "bfloat16": entries(
        lambda head: first(head).update(dtype="BF16", shape=[2 * first(head)["shape"][0]])
    ),
    "no metadata": entries(lambda head: head.pop("__metadata__")),
    "other metadata": entries(lambda head: head.update(__metadata__={"format": "np"})),
    "metadata that is no JSON": entries(lambda head: head.update(__metadata__={"jaxtickets": "{"})),
    "metadata that is a number": entries(
        lambda head: head.update(__metadata__={"jaxtickets": "3"})
    ),
    "metadata that is nested": entries(
        lambda head: head.update(__metadata__={"jaxtickets": "[" * 100_000})
    ),
    "metadata that is an object of objects": entries(
        lambda head: head.update(__metadata__={"jaxtickets": '{"a":' * 50_000 + "1" + "}" * 50_000})
    ),
    "a tensor renamed": entries(
        lambda head: head.update({"0/params/layer/w3": head.pop("0/params/layer/w1")})
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_a_header_that_lies_is_refused(saved, name):
    LIES[name](saved)
    refuses(saved)


def test_two_tensors_of_one_name_are_refused_or_change_nothing(saved):
    head, data = split(saved.read_bytes())
    entry = json.dumps(head["0/params/layer/w1"])
    other = json.dumps(head["1/params/layer/w1"])
    text = json.dumps(head)[:-1]
    for twice in (entry, other):
        saved.write_bytes(join((text + f', "0/params/layer/w1": {twice}}}').encode(), data))
        with contextlib.suppress(TicketFileError):
            assert content(jt.load(saved, TASK)) == content(make())


def drop(name):
    def change(tensors, about):
        del tensors[name]

    return change


def put(name, value):
    return lambda tensors, about: tensors.update({name: value})


def tell(**changes):
    return lambda tensors, about: about.update(changes)


FORGED = {
    "a tensor too many": (
        put("0/params/layer/w9", np.zeros(3)),
        "has no use for: '0/params/layer/w9'",
    ),
    "a member too many": (put("2/params/b", np.zeros(3)), "has no use for"),
    "a tensor too few": (drop("1/params/b"), r"member 1 has no 'params/b'"),
    "a mask too few": (
        drop("1/mask/layer/w1"),
        r"'params/layer/w1' of member 1 is float32\[\d+\]; the network needs float32\[20, 37\]",
    ),
    "statistics too few": (drop("0/state/stats/1"), r"member 0 has no 'state/stats/1'"),
    "a mask of a bias": (
        put("0/mask/b", np.zeros(1, np.uint8)),
        "masks 'b', which is not prunable",
    ),
    "a mask too short": (put("0/mask/layer/w1", np.zeros(5, np.uint8)), "a packed mask of shape"),
    "a mask of other counts": (
        put("0/mask/layer/w1", np.zeros(93, np.uint8)),
        r"the network needs float32\[0\]",
    ),
    "spare bits": (put("0/mask/layer/w1", np.full(93, 255, np.uint8)), "bits set beyond"),
    "another format": (tell(format=99), "of format 99; this version reads format 1"),
    "no format": (
        lambda tensors, about: about.pop("format") and None,
        "metadata is not a ticket file's",
    ),
    "no tickets": (
        lambda tensors, about: tensors.clear() or about.update(info=[]),
        "holds no tickets",
    ),
    "info a number": (tell(info=3), "metadata is not a ticket file's"),
    "info a text": (tell(info="ab"), "metadata is not a ticket file's"),
    "info of texts": (tell(info=["ab", "cd"]), "metadata is not a ticket file's"),
    "a plan that is none": (tell(plan={"kind": "Plan"}), "metadata is not a ticket file's"),
    "a plan that calls": (
        tell(plan={"kind": "os.system", "command": "true"}),
        "metadata is not a ticket file's",
    ),
    "x a number": (tell(x=3), "metadata is not a ticket file's"),
    "x of an odd dtype": (tell(x={"shape": [20], "dtype": "object_"}), "metadata is not"),
    "x of a huge shape": (tell(x={"shape": [10**15], "dtype": "float32"}), None),
    "x of a negative shape": (tell(x={"shape": [-5], "dtype": "float32"}), "metadata is not"),
    "x nested": (lambda tensors, about: about.update(x=nested(200)), None),
}


def nested(depth):
    x = {"shape": [], "dtype": "float32"}
    for _ in range(depth):
        x = {"list": [x]}
    return x


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_file_with_a_right_digest_is_refused_too(saved, name):
    change, message = FORGED[name]
    resealed(saved, change)
    if (
        message is None
    ):  # nothing that this network, which takes any input, could tell from the truth
        assert [t.params["b"].tobytes() for t in jt.load(saved, TASK)] == [
            t.params["b"].tobytes() for t in make()
        ]
    else:
        refuses(saved, match=message)


def test_a_file_that_declares_much_allocates_little(saved):
    """`init` of this task makes weights for whatever input the file declares: 10^15 by 37."""

    def wide(key, x):
        params, state = init(key, x)
        return params | {"layer": params["layer"] | {"w1": jnp.zeros((x.shape[-1], 37))}}, state

    resealed(saved, tell(x={"shape": [10**15], "dtype": "float32"}))
    tracemalloc.start()
    refuses(saved, jt.classification((wide, apply), num_classes=3), match="a packed mask of shape")
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_tickets_of_another_network_are_refused(saved):
    def other(key, x):
        params, state = init(key, x)
        return params | {"b": jnp.zeros(4)}, state

    def picky(key, x):
        raise KeyError("images wanted")

    refuses(
        saved,
        jt.classification((other, apply), num_classes=3),
        match=r"'params/b' of member 0 is uint16\[3\]; the network needs float32\[4\]",
    )
    refuses(
        saved,
        jt.classification((picky, apply), num_classes=3, name="picky"),
        match="holds tickets of small, not of picky",
    )


def test_what_no_network_needs_is_not_read(saved):
    """A sparse file of 2 GiB; 50,000 empty tensors; inputs of 30,000 leaves; plans of 90,000 phases; infos for as many tickets."""
    whole = saved.read_bytes()
    head, data = split(whole)
    started = time.process_time()

    def lie(**more):
        about = json.loads(head["__metadata__"]["jaxtickets"]) | more
        saved.write_bytes(join(head | {"__metadata__": {"jaxtickets": json.dumps(about)}}, data))

    large = {"dtype": "F32", "shape": [2**29], "data_offsets": [len(data), len(data) + 2**31]}
    for name, words in (
        ("1/params/layer/w9", "has no use for: '1/params/layer/w9'"),
        ("x" * 10**6, "has no use for: 'xxx"),
    ):
        saved.write_bytes(join(head | {name: large}, data))
        os.truncate(saved, saved.stat().st_size + 2**31)
        refuses(saved, match=words)
    tracemalloc.start()
    moved = dict(head)
    last = max(
        (name for name in head if name.startswith("1/")),
        key=lambda name: head[name]["data_offsets"][1],
    )
    begin = head[last]["data_offsets"][0]
    moved[last] = head[last] | {
        "shape": [2**31],
        "dtype": "U8",
        "data_offsets": [begin, begin + 2**31],
    }
    saved.write_bytes(join(moved, data[:begin]))
    os.truncate(saved, saved.stat().st_size + 2**31)
    refuses(saved, match=r"of member 1.*\[2147483648\]")
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    empty = {
        f"{i}/params/e": {"dtype": "F32", "shape": [0], "data_offsets": [len(data)] * 2}
        for i in range(50_000)
    }
    saved.write_bytes(join(head | empty, data))
    refuses(saved, match=r"holds 50,014 tensors; the network needs at most 16: ")
    lie(x={"list": [{"shape": [1], "dtype": "float32"}] * 30_000})
    refuses(saved, match="its x has more than 4,096 parts")
    lie(x={"shape": [1] * 4_000, "dtype": "float32"})
    refuses(saved, match="x of shape")
    lie(
        plan={
            "kind": "Plan",
            "name": "x",
            "phases": [{"kind": "Start"}] + [{"kind": "Collect"}] * 90_000,
        }
    )
    refuses(saved, match="its plan has more than 65,536 parts")
    with pytest.raises(TicketFileError, match="its plan has more than"):
        about(saved)
    lie(info=[{}] * 90_000)
    refuses(saved, match="member 2 has no")
    lie(shapes=[{"params/layer/w1": [1] * 90_000}, {}])
    refuses(saved, match=r"'params/layer/w1' of member 0 is declared \[1, 1, 1, 1, ...\]")
    assert time.process_time() - started < 30  # all of them; two where nothing else runs


def test_messages_quote_little_of_a_file(saved):
    head, data = split(saved.read_bytes())
    for more in (
        {"task": "x" * 10**6},
        {"format": "x" * 10**6},
        {"format": [[["x"] * 10**4] * 20]},
        {"shapes": "x" * 10**6},
        {"x": {"shape": ["y" * 10**6], "dtype": "z" * 10**6}},
    ):
        told = json.loads(head["__metadata__"]["jaxtickets"]) | more
        saved.write_bytes(join(head | {"__metadata__": {"jaxtickets": json.dumps(told)}}, data))
        with pytest.raises(TicketFileError) as error:
            jt.load(saved, jt.classification((never, apply), num_classes=3))
        assert len(str(error.value)) < 1000


def test_what_the_system_cannot_read_is_no_damage(saved, monkeypatch):
    """A fault of the disk and a lack of memory say nothing of the file, so nobody may take it for damaged."""
    import safetensors

    def fails(error):
        def opened(*args, **more):
            raise error

        return opened

    for error in (
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.EACCES, "Permission denied"),
        MemoryError(),
    ):
        monkeypatch.setattr(safetensors, "safe_open", fails(error))
        with pytest.raises(type(error)) as caught:
            jt.load(saved, TASK)
        assert caught.value is error


def test_damaged_headers_and_bytes_are_refused_or_change_nothing(saved):
    """800 files: pieces lost, doubled and moved, offsets exchanged, entries swapped, in the header and behind it."""
    rng, whole, same = random.Random(2), saved.read_bytes(), content(make())
    refused = 0
    for number in range(800):
        if number % 2:
            head, data = split(whole)
            names = [name for name in head if name != "__metadata__"]
            a, b = rng.sample(names, 2)
            part = rng.choice(("data_offsets", "shape", "dtype"))
            if rng.random() < 0.7:
                head[a][part], head[b][part] = head[b][part], head[a][part]
            else:
                head[a], head[b] = head[b], head[a]
            raw = join(head, data)
            if head == split(whole)[0]:
                continue
        else:
            changed = bytearray(whole)
            at = rng.randrange(len(changed) if rng.random() < 0.5 else 600)
            match rng.randrange(3):
                case 0:
                    del changed[at : at + rng.choice((1, 8, 100))]
                case 1:
                    changed[at:at] = changed[: rng.choice((1, 8, 100))]
                case 2:
                    changed[at : at + 8] = rng.randbytes(8)
            raw = bytes(changed)
        saved.write_bytes(raw)
        try:
            assert content(jt.load(saved, TASK)) == same
        except TicketFileError:
            refused += 1
    assert refused > 600


class Bomb:
    def __reduce__(self):
        return never, ()


def test_nothing_is_unpickled(tmp_path):
    for name, raw in (("p", pickle.dumps({"jaxtickets": 1})), ("b", pickle.dumps(Bomb()))):
        (tmp_path / name).write_bytes(raw)
        refuses(tmp_path / name)
    np.save(tmp_path / "n.npy", np.array([Bomb()], object), allow_pickle=True)
    refuses(tmp_path / "n.npy")
    names = "[m for m in sys.modules if m.startswith('jaxtickets.tickets')]"
    script = f"import sys, jaxtickets.tickets; print(any('pickle' in sys.modules[m].__dict__ for m in {names}))"
    assert (
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300
        ).stdout.strip()
        == "False"
    )


def test_what_a_file_says_of_itself(saved):
    told = about(saved)
    assert (told["task"], told["tickets"], told["plan"]) == ("small", 2, make().plan)
    other = saved.with_name("b")
    make(seed=1).save(other)
    assert about(other)["sha256"] != told["sha256"]
    other.write_bytes(b"no ticket file")
    with pytest.raises(TicketFileError, match="is not a ticket file"):
        about(other)


def test_no_file_is_an_error_of_its_own(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no ticket file"):
        jt.load(tmp_path / "a", TASK)
    with pytest.raises(FileNotFoundError, match="there is no ticket file"):
        jt.load(tmp_path, TASK)


def test_the_digest_covers_tensors_and_metadata(saved):
    head, data = split(saved.read_bytes())
    about = json.loads(head["__metadata__"]["jaxtickets"])
    assert len(about["sha256"]) == len(hashlib.sha256().hexdigest())
    about["info"][0]["train_loss"] = 0.0
    head["__metadata__"]["jaxtickets"] = json.dumps(about)
    saved.write_bytes(join(head, data))
    refuses(saved, match="SHA-256 does not match")


def test_a_task_is_only_asked_for_shapes(saved):
    lazy = Task(init, never, never, never, TASK.prunable, 3, "small")
    assert len(jt.load(saved, lazy)) == 2
