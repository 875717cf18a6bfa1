"""Crops, flips and standardisation against numpy and torch."""

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from others import others
from scipy import stats

from jaxtickets.data import CropFlip, DataError, Standardise


def images(batch, height=32, width=32, channels=3, seed=0):
    return np.random.default_rng(seed).integers(
        1, 256, (batch, height, width, channels), dtype=np.uint8
    )


def reference(x, row, column, mirror, pad):
    """One image at a time, in the words of the papers: pad, cut, mirror."""
    out = np.empty_like(x)
    for i in range(len(x)):
        padded = np.zeros((x.shape[1] + 2 * pad, x.shape[2] + 2 * pad, x.shape[3]), x.dtype)
        padded[pad : pad + x.shape[1], pad : pad + x.shape[2]] = x[i]
        cut = padded[row[i] : row[i] + x.shape[1], column[i] : column[i] + x.shape[2]]
        out[i] = cut[:, ::-1] if mirror[i] else cut
    return out


@pytest.mark.parametrize(
    ("augment", "shape"),
    [
        (CropFlip(), (64, 32, 32, 3)),
        (CropFlip(1, False), (64, 8, 8, 1)),
        (CropFlip(3), (50, 5, 9, 2)),
        (CropFlip(0), (9, 4, 4, 1)),
    ],
)
def test_equals_the_reference_with_the_same_draw(augment, shape):
    key, x = jax.random.key(3), images(*shape)
    row, column, mirror = (np.asarray(a) for a in augment.draw(key, len(x)))
    out = jax.jit(augment)(key, x)
    assert out.dtype == x.dtype
    np.testing.assert_array_equal(out, reference(x, row, column, mirror, augment.pad))
    if not augment.flip:
        assert not mirror.any()


def test_all_162_outcomes_equally_often():
    """Told apart by the pixels alone. Uniform by a chi-square test; false-alarm rate 1e-6 (and the key is fixed)."""
    augment = CropFlip(pad=4)
    x = np.arange(1, 82, dtype=np.uint8).reshape(1, 9, 9, 1).repeat(20_000, 0)
    out = np.asarray(jax.jit(augment)(jax.random.key(0), x)).reshape(len(x), -1)
    _, counts = np.unique(out, axis=0, return_counts=True)
    assert len(counts) == 9 * 9 * 2
    assert stats.chisquare(counts).pvalue > 1e-6


def test_the_border_is_pixel_zero_and_as_large_as_the_shift():
    augment, key = CropFlip(pad=4), jax.random.key(1)
    x = np.full((1000, 32, 32, 3), 255, np.uint8)
    out = np.asarray(augment(key, x))
    row, column, _ = (np.asarray(a, np.int64) for a in augment.draw(key, 1000))
    assert set(np.unique(out)) == {0, 255}
    kept = (32 - abs(row - 4)) * (32 - abs(column - 4)) * 3
    np.testing.assert_array_equal((out == 255).sum((1, 2, 3)), kept)
    assert kept.min() < kept.max() == 32 * 32 * 3


def test_examples_and_keys_differ():
    row, column, mirror = CropFlip().draw(jax.random.key(0), 10_000)
    for a, b in ((row, column), (row, mirror), (column, mirror), (row[1:], row[:-1])):
        assert (
            abs(np.corrcoef(np.asarray(a), np.asarray(b))[0, 1]) < 0.05
        )  # five standard errors: false alarm below 1e-6 each
    x = images(8)
    outs = [np.asarray(CropFlip()(jax.random.key(i), x)) for i in (0, 1, 0)]
    assert (outs[0] != outs[1]).any()
    np.testing.assert_array_equal(outs[0], outs[2])


def test_members_under_vmap_equal_lone_calls():
    keys, x = (
        jax.random.split(jax.random.key(5), 3),
        np.stack([images(6, seed=i) for i in range(3)]),
    )
    together = jax.jit(jax.vmap(CropFlip()))(keys, x)
    for key, mine, out in zip(keys, x, together, strict=True):
        np.testing.assert_array_equal(CropFlip()(key, mine), out)
    same = jax.vmap(CropFlip(), in_axes=(0, None))(keys, x[0])
    assert len({np.asarray(a).tobytes() for a in same}) == 3


def test_equal_settings_are_equal_and_compile_once():
    assert CropFlip(4) == CropFlip(pad=4, flip=True) != CropFlip(4, False)
    assert Standardise(cast(Any, [0.5]), cast(Any, np.array([0.25]))) == Standardise(
        (0.5,), (0.25,)
    )
    assert (
        len({CropFlip(), CropFlip(), Standardise((0.5,), (0.2,)), Standardise((0.5,), (0.2,))}) == 2
    )
    traces = []

    @jax.jit
    def step(x):
        traces.append(0)
        return x

    def run(augment, x):
        return jax.jit(lambda augment, x: step(augment(jax.random.key(0), x)), static_argnums=0)(
            augment, x
        )

    run(CropFlip(), images(2))
    run(CropFlip(), images(2))
    assert len(traces) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        cast(Any, CropFlip()).pad = 2


def test_under_strict_promotion():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        out = jax.jit(lambda k, x: Standardise((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))(CropFlip()(k, x)))(
            jax.random.key(0), images(4)
        )
    assert (out.shape, out.dtype) == ((4, 32, 32, 3), jnp.float32)


def test_standardise_equals_torch():
    torch = others("torch")
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    x = images(16)
    theirs = (torch.tensor(x).double() / 255 - torch.tensor(mean).double()) / torch.tensor(
        std
    ).double()
    np.testing.assert_allclose(Standardise(mean, std)(x), theirs, atol=1e-6)
    np.testing.assert_allclose(
        Standardise(mean, std)(jnp.asarray(x, jnp.float32)), theirs, atol=1e-6
    )
    np.testing.assert_allclose(
        Standardise((0.5,), (0.25,), scale=16)(x[..., :1]),
        (x[..., :1] / 16 - 0.5) / 0.25,
        rtol=1e-6,
        atol=1e-5,
    )
    slope = jax.grad(lambda x: Standardise(mean, std)(x)[0, 0, 0, 1])(jnp.zeros((1, 1, 1, 3)))
    np.testing.assert_allclose(slope.ravel(), [0, 1 / (255 * 0.2435), 0], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CropFlip(pad=-1), "integer >= 0 and below 16,384; got -1"),
        (lambda: CropFlip(pad=True), "integer >= 0 and below 16,384; got True"),
        (lambda: CropFlip(pad=cast(Any, 1.5)), "integer >= 0 and below 16,384; got 1.5"),
        (lambda: CropFlip()(jax.random.key(0), images(1)[0]), r"\[32, 32, 3\]"),
        (lambda: Standardise((0.5, 0.5), (0.2,)), "got 2 and 1"),
        (lambda: Standardise((), ()), "got 0 and 0"),
        (lambda: Standardise((0.5,), (0.0,)), "positive"),
        (lambda: Standardise((0.5,), (float("nan"),)), "positive"),
        (lambda: Standardise((0.5,), (0.2,), scale=0), "positive"),
        (lambda: Standardise((0.5,) * 3, (0.2,) * 3)(images(1, channels=1)), "1 channels"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(DataError, match=message):
        call()
