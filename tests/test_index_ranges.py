"""Row numbers of tables that a network looks up are held against the tables, whatever the network is made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import jaxtickets as jt
from jaxtickets.dataset import Dataset
from jaxtickets.errors import DataError
from jaxtickets.task import Task
from jaxtickets.tracing.index_ranges import check_values

ROWS = 10


def table(rows=ROWS):
    return jnp.ones((rows, 4))


def as_task(function, **more):
    return Task(
        lambda key, x: ({}, {}),
        lambda params, state, x, train, key: (function(x), state),
        len,
        len,
        **more,
    )


def check(function, x, prepare=lambda x: x, **more):
    check_values(as_task(function, **more), prepare, {}, {}, x, "mine: x")


LOOKS_UP = {
    "indexing": lambda x: table()[x],
    "take": lambda x: jnp.take(table(), x, axis=0),
    "take, filled with NaN": lambda x: jnp.take(
        table(), x, axis=0, mode="fill", fill_value=jnp.nan
    ),
    "along the second axis": lambda x: table().T[:, x],
    "one by one": lambda x: jax.vmap(jax.vmap(lambda i: table()[i]))(x),
    "dynamic_index_in_dim": lambda x: jax.vmap(
        jax.vmap(lambda i: jax.lax.dynamic_index_in_dim(table(), i))
    )(x),
    "map over rows": lambda x: jax.lax.map(lambda row: table()[row], x),
    "map over rows and columns": lambda x: jax.lax.map(
        lambda row: jax.lax.map(lambda i: table()[i], row), x
    ),
    "scan over columns": lambda x: jax.lax.scan(
        lambda c, t: (c + table()[t], c), jnp.zeros((len(x), 4)), x.T
    )[0],
    "constant of a scan": lambda x: jax.lax.scan(
        lambda c, t: (c + t * table()[x].sum(), None), 0.0, jnp.ones(3)
    )[0],
    "take along an axis": lambda x: jnp.take_along_axis(
        jnp.ones((*x.shape, ROWS)), x[..., None], -1
    ),
    "remat and jit": lambda x: jax.jit(jax.checkpoint(lambda x: table()[x]))(x),
    "a token before them": lambda x: table()[
        jnp.concatenate([jnp.full((len(x), 1), 9, x.dtype), x], 1)
    ],
    "through floats": lambda x: table()[x.astype(jnp.float32).astype(jnp.int32)],
    "turned about": lambda x: table()[x.T[::-1].reshape(-1)],
    "split": lambda x: [table()[part] for part in jnp.split(x, 3, axis=1)],
}


@pytest.mark.parametrize("name", LOOKS_UP)
def test_a_row_that_is_not_there_is_named_with_its_place(name):
    for dtype in (np.int32, np.int64) + (
        () if name == "dynamic_index_in_dim" else (np.uint8,)
    ):  # which takes the nearest row of those
        x = (np.arange(12, dtype=dtype).reshape(4, 3) * 9) % ROWS
        x[0] = 0, 9, 0
        check(LOOKS_UP[name], x)
        for value in (ROWS, 99, *(() if dtype == np.uint8 else (-1, -ROWS))):
            wrong = x.copy()
            wrong[3, 1], wrong[2, 2] = 9, value
            with pytest.raises(DataError) as error:
                check(LOOKS_UP[name], wrong)
            assert str(error.value) == (
                f"mine: x, row 2, column 2, is {value}; the network looks that up in a table of 10 rows: 0 to 9 are allowed."
            )
    wrong[3, 0] = ROWS
    with pytest.raises(
        DataError, match=r"row 2, column 2, is (99|-10), and 1 more like it; the network"
    ):
        check(LOOKS_UP[name], wrong)


ON_PURPOSE = {
    "clip": lambda x: jnp.take(table(), x, axis=0, mode="clip"),
    "jnp.clip": lambda x: table()[jnp.clip(x, 0, ROWS - 1)],
    "filled with a value": lambda x: table().at[x].get(mode="fill", fill_value=0),
    "where": lambda x: table()[jnp.where((x >= 0) & (x < ROWS), x, 0)],
    "remainder": lambda x: table()[x % ROWS],
    "one hot, zeros for others": lambda x: jax.nn.one_hot(x, ROWS),
    "a comparison": lambda x: table(2)[(x > 3).astype(jnp.int32)],
    "no table": lambda x: x * 2.0,
}


@pytest.mark.parametrize("name", ON_PURPOSE)
def test_what_a_network_does_with_other_numbers_on_purpose_is_its_own(name):
    check(ON_PURPOSE[name], np.array([[3, 10, -1], [300, -200, 9]]))


def test_each_column_has_its_own_range():
    """Columns of a table of categories: the first of 10 kinds, the second a number, the third of 3 kinds."""

    def columns(x):
        return table()[x["kinds"][:, 0]] + x["kinds"][:, 1:2] * table(3)[x["kinds"][:, 2]]

    check(columns, {"kinds": np.array([[9, 500, 2]])})
    with pytest.raises(
        DataError,
        match=r"^mine: x/kinds, row 1, column 2, is 3; .* table of 3 rows: 0 to 2 are allowed",
    ):
        check(columns, {"kinds": np.array([[9, 500, 2], [9, 500, 3]])})
    with pytest.raises(DataError, match=r"row 0, column 0, is 10; "):
        check(columns, {"kinds": np.array([[10, 500, 2]])})


def test_one_table_may_serve_several_columns():
    def columns(x):  # of 10 values each
        return table(3 * ROWS)[x + jnp.arange(3) * ROWS]

    check(columns, np.array([[0, 0, 9]]))
    with pytest.raises(
        DataError, match=r"row 0, column 2, is 10; .* table of 30 rows: -20 to 9 are allowed"
    ):
        check(columns, np.array([[0, 0, 10]]))


def test_what_prepare_looks_up_is_checked_as_it_is_stored():
    palette = jnp.ones((4, 3))
    x = np.full((2, 5, 5), 3, np.uint8)
    check(lambda x: x, x, lambda x: palette[x].mean(-1)[:, 0])
    x[1, 2, 4] = 4
    with pytest.raises(DataError, match=r"row 1, column \(2, 4\), is 4; .* 0 to 3 are"):
        check(lambda x: x, x, lambda x: palette[x].mean(-1)[:, 0])


class LinenNet(linen.Module):
    num_classes: int = 2

    @linen.compact
    def __call__(self, x):
        return linen.Dense(2)(linen.Embed(ROWS, 4)(x).mean(1))


class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.embed, self.out = nnx.Embed(ROWS, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.out(self.embed(x).mean(1))


@pytest.mark.parametrize("model", [LinenNet(), NNXNet], ids=["linen", "nnx"])
def test_every_door_is_watched(model, tmp_path):
    task = jt.classification(model, num_classes=2)
    x, y = np.arange(12, dtype=np.int32).reshape(4, 3) % ROWS, np.arange(4, dtype=np.int32) % 2
    plan = jt.dense(epochs=1, batch_size=2)
    tickets = jt.fit(plan, task, Dataset(x, y, 2), key=0, progress=False)
    wrong = x.copy()
    wrong[3, 1] = ROWS
    data = Dataset(wrong, y, 2, name="mine")
    more = {"key": 0, "progress": False}
    for call, name in (
        (lambda: jt.fit(plan, task, data, **more), "mine: x"),
        (
            lambda: jt.fit(
                plan, task, Dataset(x, y, 2, name="mine", augment=lambda key, x: x + 1), **more
            ),
            "mine: x after augment",
        ),
        (
            lambda: jt.fit(plan, task, Dataset(x, y, 2), probe=wrong, out=tmp_path / "a", **more),
            "probe",
        ),
        (lambda: tickets.predict(wrong), "x"),
        (lambda: tickets.predict_proba(data), "x"),
        (lambda: jt.evaluate(tickets, data), "x"),
        (lambda: tickets.recalibrate(data), "x"),
    ):
        with pytest.raises(
            DataError, match=rf"^{name}, row \d, column \d, is 10.* 0 to 9 are allowed"
        ):
            call()
    assert tickets.predict(x).shape == (4,)
