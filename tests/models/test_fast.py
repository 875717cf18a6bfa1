"""The fast formulations are `jax.lax`'s convolution: outputs, both gradients, every derivative mode, vmap and multiply-adds."""

import functools
import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import jaxprs_in_params
from others import others

import jaxtickets as jt
from jaxtickets.models import (
    DenseNet,
    LeNet,
    ResNet,
    TextClassifier,
    TransformerConfig,
    WideResNet,
    fast,
)


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


def multiply_adds(jaxpr, platform):
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
        inner = list(jaxprs_in_params(eqn.params))
        if eqn.primitive.name == "cond":  # of the forms by platform, that one
            forms = eqn.params["branches_platforms"]
            inner = [inner[forms.index((platform,) if (platform,) in forms else None)]]
        total += sum(multiply_adds(one, platform) for one in inner)
    return total


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize(("height", "width", "side", "channels", "strides", "padding"), CASES)
def test_the_forward_pass_has_the_multiply_adds_of_the_textbook(
    height, width, side, channels, strides, padding, platform
):
    x, kernel = arrays(height, width, side, channels)
    jaxpr = jax.make_jaxpr(lambda x, k: fast.conv2d(x, k, strides, padding))(x, kernel)
    positions = reference(x, kernel, strides, padding).size
    assert multiply_adds(jaxpr.jaxpr, platform) == positions * side * side * channels


def as_on(platform, function):
    """`function` with the forms of that platform, run here: lowered for it, they are plain operations."""

    def run(*args):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                lax,
                "platform_dependent",
                lambda *args, default, **forms: forms.get(platform, default)(*args),
            )
            return function(*args)

    return run


@pytest.mark.parametrize(("height", "width", "side", "channels", "strides", "padding"), CASES)
def test_an_accelerators_form_and_its_gradients_are_lax(
    height, width, side, channels, strides, padding
):
    x, kernel = arrays(height, width, side, channels)

    def both(conv, x, kernel):
        y, pull = jax.vjp(lambda x, k: conv(x, k, strides, padding), x, kernel)
        return y, pull(jnp.sin(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    # The same operations in the same order: the same bits.
    jax.tree.map(
        np.testing.assert_array_equal,
        as_on("tpu", lambda: both(fast.conv2d, x, kernel))(),
        both(reference, x, kernel),
    )


DETOUR = re.compile(r"lhs_dilate = \[2, 1\]")


def lowered(function, platform, *args):
    """The text of a program that is lowered here for another machine."""
    return jax.jit(function).trace(*args).lower(lowering_platforms=(platform,)).as_text()


NETWORKS = {
    "lenet": lambda: LeNet("S"),
    "wide resnet": lambda: WideResNet(10, 1),
    "resnet": lambda: ResNet(18, width=8),
    "densenet": lambda: DenseNet((2, 2, 2, 2), growth=4),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_detour_is_in_what_is_lowered_for_a_cpu_only(name):
    task = jt.classification(NETWORKS[name]())
    x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    params, state = jax.eval_shape(task.init, jax.random.key(0), x)

    def predict(params, state, x):
        return task.apply(params, state, x, False, None)[0]

    def gradient(params, state, x):
        return jax.grad(lambda p: jnp.sum(task.apply(p, state, x, True, jax.random.key(0))[0]))(
            params
        )

    for function in (predict, gradient):
        texts = {
            platform: lowered(function, platform, params, state, x)
            for platform in ("cpu", "cuda", "tpu")
        }
        found = {platform: len(DETOUR.findall(text)) for platform, text in texts.items()}
        assert found["cpu"] > 0
        assert found["cuda"] == found["tpu"] == 0
        # and with the detour goes all of it: only convolutions, each as it is written
        assert texts["cuda"].count("stablehlo.convolution") >= found["cpu"]


def test_bert_is_lowered_alike_for_every_platform():
    config = TransformerConfig(
        vocabulary=50, layers=2, width=16, heads=2, intermediate=32, positions=16
    )
    task = jt.classification(TextClassifier(config, 3))
    x = {name: jax.ShapeDtypeStruct((2, 8), jnp.int32) for name in ("input_ids", "attention_mask")}
    params, state = jax.eval_shape(task.init, jax.random.key(0), x)

    def predict(params, state, x):
        return task.apply(params, state, x, False, None)[0]

    counts = [
        lowered(predict, platform, params, state, x).count("stablehlo.dot_general")
        for platform in ("cpu", "cuda", "tpu")
    ]
    assert len(set(counts)) == 1
    assert counts[0] > 0


def test_a_compiled_program_holds_no_branch():
    x, kernel = arrays(8, 8, 3, 5)

    def loss(x, k):
        return jnp.sum(jnp.sin(fast.conv2d(fast.conv2d(x, k), k[..., :5, :].swapaxes(2, 3), 2)))

    forms = {
        "plain": loss,
        "gradient": jax.grad(loss, (0, 1)),
        "of members": jax.vmap(jax.grad(loss, (0, 1)), (None, 0)),
        "rematerialised": jax.grad(jax.checkpoint(loss), (0, 1)),
        "scanned": lambda x, k: lax.scan(lambda c, _: (c - loss(x, c) * c, None), k, length=2)[0],
    }
    for name, form in forms.items():
        given = kernel[None].repeat(2, 0) if name == "of members" else kernel
        program = jax.jit(form).lower(x, given).compile().as_text()
        assert " conditional(" not in program, name


def test_one_function_is_exported_for_every_platform():
    x, kernel = arrays(8, 8, 3, 5)

    def gradients(x, k):
        return jax.grad(lambda x, k: jnp.sum(jnp.sin(fast.conv2d(x, k, 2))), (0, 1))(x, k)

    exported = jax.export.export(jax.jit(gradients), platforms=("cpu", "cuda", "tpu"))(x, kernel)
    # Two programs may round otherwise: sums of some hundred products of order 1.
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5),
        exported.call(x, kernel),
        jax.jit(gradients)(x, kernel),
    )
    program = jax.jit(exported.call).lower(x, kernel).compile().as_text()
    assert " conditional(" not in program


@pytest.mark.parametrize("outer", [jax.checkpoint, jax.jit])
def test_gradients_through_loops_and_checkpoints_are_lax(outer):
    x, kernel = arrays(6, 6, 3, 6)

    def loss(conv):
        @outer
        def run(k):
            return lax.scan(lambda y, _: (jnp.tanh(conv(y, k, 1, "SAME")), None), x, length=3)[0]

        return jax.jit(jax.grad(lambda k: jnp.sum(jnp.sin(run(k)))))(kernel)

    # Three convolutions of sums of 54 products, added in another order.
    np.testing.assert_allclose(loss(fast.conv2d), loss(reference), rtol=1e-4, atol=1e-4)


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
