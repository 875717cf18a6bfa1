"""The fast formulations are `jax.lax`'s convolution: outputs, both gradients, every derivative mode, vmap and multiply-adds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import jaxprs_in_params
from others import others

from jaxtickets.models import fast


def reference(x, kernel, strides, padding):
    pads = tuple((k // 2, (k - 1) // 2) for k in kernel.shape[:2]) if padding == "SAME" else "VALID"
    return lax.conv_general_dilated(
        x, kernel, (strides, strides), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def arrays(height, width, side, channels, features=6, dtype=jnp.float32):
    kx, kk = jax.random.split(jax.random.key(side))
    x = jax.random.normal(kx, (2, height, width, channels), dtype)
    return x, jax.random.normal(kk, (side, side, channels, features), dtype) / side


CASES = [
    (7, 9, 3, 5, 1, "SAME"),
    (7, 8, 3, 5, 2, "SAME"),
    (9, 7, 5, 8, 1, "VALID"),
    (8, 7, 3, 3, 1, "SAME"),  # few channels
    (8, 7, 5, 1, 2, "VALID"),
    (7, 8, 1, 6, 2, "VALID"),
    (8, 7, 2, 6, 3, "SAME"),  # an even kernel, a stride longer than it
]


@pytest.mark.parametrize(("height", "width", "side", "channels", "strides", "padding"), CASES)
def test_conv2d_and_its_gradients_are_lax(height, width, side, channels, strides, padding):
    x, kernel = arrays(height, width, side, channels)

    @jax.jit
    def both(x, kernel):
        outs = []
        for conv in (fast.conv2d, reference):
            y, pull = jax.vjp(lambda x, k, conv=conv: conv(x, k, strides, padding), x, kernel)
            y2, tangent = jax.jvp(
                lambda x, k, conv=conv: conv(x, k, strides, padding),
                (x, kernel),
                (x + 1, kernel * kernel),
            )
            outs.append(
                (y, pull(jnp.sin(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)), y2, tangent)
            )
        return outs

    ours, lax_s = both(x, kernel)
    # Sums of at most 300 products of numbers near 1, added in another order: a few units in the last place of the sum.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, lax_s)


def test_a_gradient_of_a_gradient_is_lax():
    x, kernel = arrays(8, 8, 3, 5)

    def penalty(conv):
        return jax.jit(
            jax.grad(
                lambda k: jnp.sum(jax.grad(lambda x: jnp.sum(conv(x, k, 2, "SAME") ** 2))(x) ** 2)
            )
        )(kernel)

    np.testing.assert_allclose(penalty(fast.conv2d), penalty(reference), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("side", "channels", "strides"), [(3, 8, 2), (5, 3, 1)])
def test_bfloat16_rounds_once(side, channels, strides):
    x, kernel = arrays(8, 8, side, channels, dtype=jnp.bfloat16)
    y, pull = jax.vjp(lambda x, k: fast.conv2d(x, k, strides), x, kernel)
    grads = pull(y)
    wide = reference(x.astype(jnp.float32), kernel.astype(jnp.float32), strides, "SAME")
    assert y.dtype == grads[0].dtype == grads[1].dtype == jnp.bfloat16
    np.testing.assert_allclose(
        y.astype(jnp.float32), wide, rtol=2**-8, atol=2**-8
    )  # bfloat16 has 8 bits


@pytest.mark.parametrize(("side", "channels", "strides"), [(3, 6, 2), (5, 3, 1), (1, 6, 2)])
def test_vmap_over_members_is_a_loop(side, channels, strides):
    x, kernel = arrays(8, 8, side, channels)
    kernels = jnp.stack([kernel, -kernel, kernel + 1])
    xs = jnp.stack([x, x * 2, x + 1])

    def grads(x, kernel):
        return jax.grad(lambda x, k: jnp.sum(jnp.sin(fast.conv2d(x, k, strides))), argnums=(0, 1))(
            x, kernel
        )

    batched = jax.jit(jax.vmap(grads))(xs, kernels)
    for i in range(3):
        lone = jax.jit(grads)(xs[i], kernels[i])
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-4),
            batched,
            lone,
        )


def multiply_adds(jaxpr):
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "conv_general_dilated":
            kernel = eqn.invars[1].aval.shape
            out = eqn.outvars[0].aval
            total += (
                out.size
                * int(np.prod(kernel))
                // kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
            )
        elif eqn.primitive.name == "dot_general":
            (contract, _), _ = eqn.params["dimension_numbers"]
            total += eqn.outvars[0].aval.size * int(
                np.prod([eqn.invars[0].aval.shape[i] for i in contract])
            )
        for inner in jaxprs_in_params(eqn.params):
            total += multiply_adds(inner)
    return total


@pytest.mark.parametrize(("height", "width", "side", "channels", "strides", "padding"), CASES)
def test_the_forward_pass_has_the_multiply_adds_of_the_textbook(
    height, width, side, channels, strides, padding
):
    x, kernel = arrays(height, width, side, channels)
    jaxpr = jax.make_jaxpr(lambda x, k: fast.conv2d(x, k, strides, padding))(x, kernel)
    positions = reference(x, kernel, strides, padding).size
    assert multiply_adds(jaxpr.jaxpr) == positions * side * side * channels


def test_an_accelerator_gets_the_plain_convolution(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    x, kernel = arrays(8, 8, 3, 5)
    jaxpr = jax.make_jaxpr(lambda x, k: fast.conv2d(x, k, 2))(x, kernel)
    assert [eqn.primitive.name for eqn in jaxpr.eqns] == ["conv_general_dilated"]
    assert jaxpr.eqns[0].params["lhs_dilation"] == (1, 1)
    np.testing.assert_allclose(
        fast.conv2d(x, kernel, 2), reference(x, kernel, 2, "SAME"), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (2, 7, 9, 3)])
def test_max_pool_is_reduce_window(shape):
    x = jax.random.normal(jax.random.key(0), shape)

    def window(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    np.testing.assert_array_equal(fast.max_pool_2x2(x), window(x))
    ours, theirs = (
        jax.grad(lambda x, pool=pool: jnp.sum(jnp.sin(pool(x))))(x)
        for pool in (fast.max_pool_2x2, window)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("max_pool_3x3", ("max_pool2d", 3, 2, 1)), ("avg_pool_2x2", ("avg_pool2d", 2))],
)
@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (2, 7, 10, 3), (1, 3, 2, 1)])
def test_pools_are_torchs(ours, theirs, shape):
    torch = others("torch")
    x = (
        np.random.default_rng(0).normal(size=shape).astype(np.float32) - 5
    )  # all below the zeros that a padding could bring in
    y, pull = jax.vjp(getattr(fast, ours), x)
    images = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    wanted = getattr(torch.nn.functional, theirs[0])(images, *theirs[1:])
    cotangent = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    wanted.backward(torch.from_numpy(cotangent.transpose(0, 3, 1, 2).copy()))
    # At most four terms, which may cancel: a unit in the last place of the largest.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
    close(y, wanted.detach().numpy().transpose(0, 2, 3, 1))
    close(pull(cotangent)[0], images.grad.numpy().transpose(0, 2, 3, 1))


def test_max_pool_of_one_pixel_is_that_pixel():
    x = jnp.full((1, 1, 1, 2), -3.0)
    np.testing.assert_array_equal(fast.max_pool_3x3(x), x)
    np.testing.assert_array_equal(
        jax.grad(lambda x: jnp.sum(fast.max_pool_3x3(x)))(x), jnp.ones_like(x)
    )


def test_gelu_is_torchs_and_its_gradient_jaxs():
    torch = others("torch")
    x = np.concatenate([np.linspace(-12, 12, 4001), [0.0, -0.0, 1e-30, -80.0, 80.0]]).astype(
        np.float32
    )
    wanted = torch.nn.functional.gelu(torch.from_numpy(x)).numpy()
    # erf is off by some 1e-7 in either library, and is multiplied by x where 1 + erf is not 0.
    np.testing.assert_allclose(fast.gelu(jnp.asarray(x)), wanted, rtol=1e-6, atol=1e-6)
    ours, theirs = (
        jax.grad(lambda x, f=f: jnp.sum(f(x)))(jnp.asarray(x))
        for f in (fast.gelu, functools.partial(jax.nn.gelu, approximate=False))
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=2e-6)
    half = fast.gelu(jnp.asarray(x, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    exact = fast.gelu(jnp.asarray(x, jnp.bfloat16).astype(jnp.float32))
    np.testing.assert_array_equal(half, exact.astype(jnp.bfloat16))
