"""Packed layers put out what masked ones do, and what cannot be packed or read is an error that says why."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import export
from test_ticket_file import resealed

import jaxtickets as jt
from jaxtickets import masks
from jaxtickets.errors import MaskError, TicketFileError
from jaxtickets.masks import Blocks, packing
from jaxtickets.masks.packable import packable
from jaxtickets.models import TransformerConfig
from jaxtickets.models.block_products import block_product
from jaxtickets.models.layers import Dense

FOUR = Blocks(4, 4)
TABLE = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [0, 0, 1, 1]], bool)


def kernel(table, rows, columns, seed=0):
    """Of random weights in the blocks of a table, and its mask."""
    mask = np.repeat(np.repeat(table, rows, 0), columns, 1)
    weights = np.random.default_rng(seed).normal(size=mask.shape).astype(np.float32)
    return np.where(mask, weights, 0), mask


def test_strips_by_hand():
    """Columns of 2, 0, 2 and 2 blocks, in strips of three and in more strips than needed."""
    rows, columns, there = packing.strips(TABLE, 4, 3)
    assert columns.tolist() == [0, 2, 3, 3]
    assert there.tolist() == [[True, True, False]] * 3 + [[False] * 3]
    assert rows[:3, :2].tolist() == [[0, 1], [0, 2], [1, 2]]
    assert packing.fewest([TABLE.sum(0)]) == (3, 2)
    assert packing.fewest([np.zeros(4, int)]) == (1, 1)
    # 3 strips of 5 cost 18; 11 of 1 cost 22, 6 of 2 18, 4 of 3 16, 4 of 4 20.
    assert packing.fewest([np.array([5, 3, 3])]) == (4, 3)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_packed_is_unpacked_and_multiplies_alike(ranks_as_written, seed):
    rng = np.random.default_rng(seed)
    table = rng.random(rng.integers(1, 7, 2)) < rng.random()
    whole, mask = kernel(table, 2, 3, seed)
    count, length = packing.fewest([table.sum(0)])
    count += int(rng.integers(0, 3))  # beside larger networks of its group
    packed = packing.pack(whole, table, count, length)
    np.testing.assert_array_equal(packing.unpack(packed, table), whole)
    held = packing.pack(mask, table, count, length)
    assert held.sum() == mask.sum()
    np.testing.assert_array_equal(packing.unpack(held, table), mask)
    traced = jax.jit(packing.pack, static_argnums=(2, 3))(whole, table, count, length)
    np.testing.assert_array_equal(traced, packed)
    np.testing.assert_array_equal(jax.jit(packing.unpack)(packed, table), whole)
    x = rng.normal(size=(2, 3, whole.shape[0])).astype(np.float32)
    y = jax.jit(block_product)(x, packed, table)
    np.testing.assert_allclose(y, x @ whole, atol=1e-5)  # ten terms of order 1, in another order


def test_its_gradients_are_those_of_the_masked_product():
    whole, mask = kernel(TABLE, 4, 4)
    x = np.random.default_rng(1).normal(size=(5, 12)).astype(np.float32)
    packed = packing.pack(whole, TABLE, 4, 2)

    def loss(product):
        return lambda x, w: jnp.sum(jnp.tanh(product(x, w)))

    own = jax.grad(loss(lambda x, w: block_product(x, w, TABLE)), (0, 1))(x, packed)
    theirs = jax.grad(loss(lambda x, w: x @ jnp.where(mask, w, 0)), (0, 1))(x, whole)
    np.testing.assert_allclose(own[0], theirs[0], atol=1e-5)
    np.testing.assert_allclose(packing.unpack(np.asarray(own[1]), TABLE), theirs[1], atol=1e-5)


def test_members_with_other_blocks_are_vmapped():
    tables = np.stack([TABLE, TABLE[:, ::-1], ~TABLE])
    length = 2
    count = max(int((-(-table.sum(0) // length)).sum()) for table in tables)
    wholes = [kernel(table, 4, 4, i)[0] for i, table in enumerate(tables)]
    packed = np.stack(
        [packing.pack(w, t, count, length) for w, t in zip(wholes, tables, strict=True)]
    )
    x = np.random.default_rng(1).normal(size=(3, 5, 12)).astype(np.float32)
    y = jax.jit(jax.vmap(block_product))(x, packed, tables)
    np.testing.assert_allclose(y, np.einsum("mbi,mio->mbo", x, np.stack(wholes)), atol=1e-5)


class Own(nn.Module):
    """A user's perceptron, of Linen's layers, in half precision if asked for."""

    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(16, dtype=self.dtype)(x))
        x = nn.relu(nn.Dense(24, use_bias=False, dtype=self.dtype)(x))
        return nn.Dense(3, dtype=self.dtype)(x).astype(jnp.float32)


class Nested(nn.Module):
    """Layers in a layer, one of them used twice, inside remat."""

    @nn.compact
    def __call__(self, x):
        inner = Dense(12, name="twice")
        x = nn.remat(Own)(name="own")(inner(jnp.tanh(inner(x))))
        return x


CONFIG = TransformerConfig(
    vocabulary=30, layers=2, width=16, heads=2, intermediate=32, positions=8, dropout=0.0
)
TOKENS = {name: np.ones((2, 6), np.int32) for name in ("input_ids", "attention_mask")}
NETWORKS = {
    "own": (Own(), np.zeros((2, 12), np.float32)),
    "nested": (Nested(), np.zeros((2, 12), np.float32)),
    "lenet": (jt.models.LeNet((4, 4, 32, 16), num_classes=3), np.zeros((2, 16, 16, 1), np.float32)),
    "bert": (jt.models.TextClassifier(CONFIG, 3), TOKENS),
    "batch_ensemble": (
        jt.models.BatchEnsemble(jt.models.LeNet((4, 4, 32, 16), num_classes=3), 2),
        np.zeros((2, 16, 16, 1), np.float32),
    ),
    "mc_dropout": (
        jt.models.MCDropout(jt.models.LeNet((4, 4, 32, 16), num_classes=3, dropout=0.3), 2, 0),
        np.zeros((2, 16, 16, 1), np.float32),
    ),
}


def masked(model, x, sparsity=0.7, members=1):
    """Tickets of random blocks, whose biases are not 0, and examples."""
    task = jt.classification(model, num_classes=3)
    spec = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)
    tickets = []
    for i in range(members):
        key = jax.random.fold_in(jax.random.key(0), i)
        params, state = jax.device_get(jax.jit(task.init)(key, x))
        rng = np.random.default_rng(i)
        params = jax.tree.map(
            lambda p, rng=rng: p + rng.normal(0, 0.1, p.shape).astype(p.dtype), params
        )
        mask = masks.sparsity.random_mask(key, params, sparsity, "uniform", structure=FOUR)
        params, mask = jax.device_get((masks.apply(mask, params), mask))
        tickets.append(jt.Ticket(params, mask, state, {"lineage": i}))
    rng = np.random.default_rng(9)
    x = jax.tree.map(
        lambda a: (
            rng.normal(size=a.shape).astype(a.dtype)
            if a.dtype == np.float32
            else np.where(np.arange(a.size).reshape(a.shape) % 5, a, 1)
        ),
        x,
    )
    return jt.TicketEnsemble(task, tuple(tickets), spec), x


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_gradients_are_those_of_the_masked_network(name):
    tickets, x = masked(*NETWORKS[name])
    small = jt.pack(tickets, FOUR, at_most=0.9)
    task, (wide,), (ticket,) = tickets.task, tickets.tickets, small.tickets
    assert ticket.info["packed"][1] < ticket.info["packed"][0]
    tables = packing.tables_in(ticket.model_state)
    assert len(tables) >= 2

    @functools.partial(jax.jit, static_argnums=3)
    def outputs(params, state, x, train):
        return task.apply(params, state, x, train, jax.random.key(1) if train else None)

    @jax.jit
    def grads(params, state, x):
        return jax.grad(lambda p: jnp.sum(jnp.sin(outputs(p, state, x, True)[0])))(params)

    # A few layers of at most a hundred terms of order 1, in another order.
    for train in (False, True):
        y, state = outputs(ticket.params, ticket.model_state, x, train)
        assert jax.tree.structure(state) == jax.tree.structure(ticket.model_state)
        np.testing.assert_allclose(
            y, outputs(wide.params, wide.model_state, x, train)[0], atol=1e-5
        )
    own = masks.apply(ticket.mask, grads(ticket.params, ticket.model_state, x))
    theirs = masks.apply(wide.mask, grads(wide.params, wide.model_state, x))
    own = packing.unpacked(jax.device_get(own), tables)
    for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    whole = jt.unpack(small).tickets[0]
    for a, b in zip(jax.tree.leaves(whole[:3]), jax.tree.leaves(wide[:3]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert whole.info == wide.info


def test_of_bert_the_dense_layers_are_packed():
    tickets, _ = masked(*NETWORKS["bert"])
    tables = packing.tables_in(jt.pack(tickets, FOUR, 0.9).tickets[0].model_state)
    assert "encoder/layer_1/intermediate/kernel" in tables
    assert "encoder/layer_0/output/kernel" in tables


def test_features_are_those_of_the_masked_network():
    tickets, x = masked(*NETWORKS["lenet"])
    small = jt.pack(tickets, FOUR, 0.9)
    features = tickets.task.features
    assert features is not None
    own, theirs = (features(t.params, t.model_state, x) for t in (*small, *tickets))
    assert list(own) == list(theirs)
    for name, of in theirs.items():
        np.testing.assert_allclose(own[name], of, atol=1e-5)


def test_a_packed_bert_is_written_as_the_masked_one(tmp_path):
    tickets, _ = masked(*NETWORKS["bert"])
    for name, of in (("masked", tickets), ("packed", jt.pack(tickets, FOUR, 0.9))):
        jt.save_pretrained(of.tickets[0], CONFIG, tmp_path / name)
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("masked", "packed"))
    assert a == b


def test_half_precision_stays_half_precision():
    tickets, x = masked(Own(jnp.bfloat16), NETWORKS["own"][1])
    small = jt.pack(tickets, FOUR, 0.9)
    text = str(
        jax.make_jaxpr(lambda p, s, x: tickets.task.apply(p, s, x, False, None)[0])(
            *small.tickets[0][::2][:1], small.tickets[0].model_state, x
        )
    )
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert len(products) == 3
    assert all("bf16" in line.split("=")[0] for line in products)
    a, b = (of.member_log_proba(x) for of in (tickets, small))
    np.testing.assert_allclose(a, b, atol=0.05)  # eight bits of numbers of order 1


def test_a_packed_network_is_exported():
    tickets, x = masked(*NETWORKS["own"])
    ticket = jt.pack(tickets, FOUR, 0.9).tickets[0]
    run = jax.jit(
        lambda x: tickets.task.apply(ticket.params, ticket.model_state, x, False, None)[0]
    )
    exported = export.deserialize(export.export(run)(x).serialize())
    np.testing.assert_allclose(
        exported.call(x), run(x), rtol=1e-6, atol=1e-6
    )  # two programs may round otherwise


def test_packing_again_gives_the_same():
    small = jt.pack(masked(*NETWORKS["own"])[0], FOUR, 0.9)
    again = jt.pack(small, FOUR, 0.9)
    for a, b in zip(
        jax.tree.leaves(again.tickets[0][:3]), jax.tree.leaves(small.tickets[0][:3]), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: jt.pack(t), "16 x 24 weights do not divide into Blocks"),
        (lambda t: jt.pack(t, FOUR, 0.01), "beyond 1%"),
        (lambda t: jt.pack(t, masks.NM(2, 4)), "structure is jaxtickets.masks.Blocks"),
        (lambda t: jt.pack(t, FOUR, 2), "at_most"),
        (lambda t: jt.pack(t.tickets[0]), "tickets is an ensemble"),
        (lambda t: jt.unpack(t.tickets), "tickets is an ensemble"),
        (lambda t: jt.shrink(jt.pack(t, FOUR, 0.9)), "unpack"),
    ],
)
def test_what_cannot_be_packed_says_why(change, match):
    with pytest.raises(MaskError, match=match):
        change(masked(*NETWORKS["own"])[0])


def test_networks_that_do_not_run_packed_say_why():
    def init(key, x):
        return {"kernel": jnp.ones((8, 8)), "other": {"w": jnp.ones((8, 3))}}, {}

    def apply(params, state, x, train, key):
        return x @ params["kernel"] @ params["other"]["w"], state

    why = packable(
        apply, *init(None, None), jax.ShapeDtypeStruct((8,), jnp.float32), masks.KERNELS, FOUR
    )
    assert "does not run packed" in why["kernel"]
    assert "only Linen's dense layers" in why["other/w"]

    class OwnProduct(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(4, dot_general=jax.lax.dot_general)(nn.Dense(8, name="good")(x))

    model = OwnProduct()
    params = model.init(jax.random.key(0), jnp.ones((1, 8)))["params"]
    task = jt.classification(model, num_classes=4)
    spec = jax.ShapeDtypeStruct((8,), jnp.float32)
    why = packable(task.apply, params, {}, spec, masks.KERNELS, FOUR)
    assert why["good/kernel"] == ""
    assert "dot_general of its own" in why["Dense_0/kernel"]


@pytest.fixture
def file(tmp_path):
    jt.pack(masked(*NETWORKS["own"], members=2)[0], FOUR, 0.9).save(tmp_path / "packed")
    return tmp_path / "packed"


def test_a_file_is_read_as_it_was_written(file):
    written, task = (
        jt.pack(masked(*NETWORKS["own"], members=2)[0], FOUR, 0.9),
        masked(*NETWORKS["own"])[0].task,
    )
    read = jt.load(file, task)
    for a, b in zip(read, written, strict=True):
        assert jax.tree.structure(a[:3]) == jax.tree.structure(b[:3])
        for x, y in zip(jax.tree.leaves(a[:3]), jax.tree.leaves(b[:3]), strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


NAME, KERNEL = "0/state/packed_blocks/Dense_0/stored", "params/Dense_0/kernel"


def more_blocks(tensors, about):
    tensors[NAME] = np.ones_like(tensors[NAME])


def fewer_blocks(tensors, about):
    tensors[NAME] = np.zeros_like(tensors[NAME])


def another_dtype(tensors, about):
    tensors[NAME] = tensors[NAME].astype(np.int32)


def no_table(tensors, about):
    del tensors[NAME]
    del about["shapes"][0][NAME[2:]]


def larger_than_the_layer(tensors, about):
    about["shapes"][0][NAME[2:]] = [400, 400]


def more_strips_than_blocks(tensors, about):
    about["shapes"][0][KERNEL] = [10**6, 10**6, 4, 4]


def odd_blocks(tensors, about):
    about["shapes"][0][KERNEL] = [1, 1, "4", -4]


def a_table_of_nothing(tensors, about):
    about["shapes"][0]["state/packed_blocks/Dense_9/stored"] = [1, 1]
    tensors["0/state/packed_blocks/Dense_9/stored"] = np.ones((1, 1), bool)


def unmasked(tensors, about):
    del tensors["0/mask/Dense_0/kernel"]


@pytest.mark.parametrize(
    "change",
    [
        more_blocks,
        fewer_blocks,
        another_dtype,
        no_table,
        larger_than_the_layer,
        more_strips_than_blocks,
        odd_blocks,
        a_table_of_nothing,
        unmasked,
    ],
)
def test_a_forged_file_is_refused(file, change):
    resealed(file, change)
    with pytest.raises(TicketFileError):
        jt.load(file, masked(*NETWORKS["own"])[0].task)
