"""Parameter counts are the papers'; outputs, gradients and batch statistics are PyTorch's; errors say what was wanted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_checks import compare, count, shapes, weights
from others import others

from jaxtickets.models import LeNet, WideResNet, classification


@pytest.mark.parametrize(
    ("size", "expected"),
    [("S", 253_290), ("M", 1_007_306), ("L", 4_017_546), ((16, 32, 256, 128), 253_290)],
)
def test_lenet_has_the_parameters_of_the_paper(size, expected):
    assert count(shapes(LeNet(size), (32, 32, 3))) == expected


@pytest.mark.parametrize(("classes", "expected"), [(10, 36_461_232), (100, 36_518_832)])
def test_wrn_28_10_has_the_kernels_of_the_reference(classes, expected):
    assert count(shapes(WideResNet(28, 10, classes), (32, 32, 3)), "kernel") == expected


def test_convolutions_of_wrn_start_at_variance_2_over_fan_out(key):
    task = classification(WideResNet(10, 4))
    kernel = jax.jit(
        lambda k: task.init(k, jnp.zeros((1, 8, 8, 3)))[0]["group3_block1"]["conv2"]["kernel"]
    )(key)
    # 589,824 draws: the standard error of their deviation is 0.1 % of it, and 5 of those are allowed.
    np.testing.assert_allclose(jnp.std(kernel), np.sqrt(2 / (9 * 256)), rtol=5e-3)


def torch_lenet(torch):
    nn = torch.nn
    conv1, conv2 = nn.Conv2d(3, 16, 5), nn.Conv2d(16, 32, 5)
    dense1, dense2, classifier = nn.Linear(800, 256), nn.Linear(256, 128), nn.Linear(128, 10)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2, self.dense1, self.dense2, self.classifier = (
                conv1,
                conv2,
                dense1,
                dense2,
                classifier,
            )

        def forward(self, x):
            for conv in (conv1, conv2):
                x = nn.functional.max_pool2d(torch.relu(conv(x)), 2)
            x = x.permute(0, 2, 3, 1).flatten(1)  # channels last, as ours flattens
            return classifier(torch.relu(dense2(torch.relu(dense1(x)))))

    return Net()


def torch_wrn_10_1(torch, channels):
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, i, o, stride):
            super().__init__()
            self.bn1, self.bn2 = nn.BatchNorm2d(i), nn.BatchNorm2d(o)
            self.conv1, self.conv2 = (
                nn.Conv2d(i, o, 3, stride, 1, bias=False),
                nn.Conv2d(o, o, 3, 1, 1, bias=False),
            )
            self.shortcut = nn.Conv2d(i, o, 1, stride, bias=False) if i != o else None

        def forward(self, x):
            y = torch.relu(self.bn1(x))
            x = x if self.shortcut is None else self.shortcut(y)
            return x + self.conv2(torch.relu(self.bn2(self.conv1(y))))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
            self.group1_block1, self.group2_block1, self.group3_block1 = (
                Block(16, 16, 1),
                Block(16, 32, 2),
                Block(32, 64, 2),
            )
            self.bn, self.classifier = nn.BatchNorm2d(64), nn.Linear(64, 10)

        def forward(self, x):
            x = self.group3_block1(self.group2_block1(self.group1_block1(self.conv(x))))
            return self.classifier(torch.relu(self.bn(x)).mean((2, 3)))

    return Net()


@pytest.mark.parametrize(
    ("name", "image"), [("lenet", (32, 32, 3)), ("wrn", (8, 8, 1)), ("wrn", (9, 7, 3))]
)
def test_outputs_gradients_and_statistics_are_torchs(name, image):
    torch = others("torch")
    torch.manual_seed(0)
    net = torch_lenet(torch) if name == "lenet" else torch_wrn_10_1(torch, image[2])
    compare(net, LeNet("S") if name == "lenet" else WideResNet(10, 1), image)


@pytest.mark.parametrize(
    ("model", "image"),
    [
        (LeNet("S", dtype=jnp.bfloat16), (16, 16, 3)),
        (WideResNet(10, 1, dtype=jnp.bfloat16), (8, 8, 3)),
    ],
)
def test_bfloat16_computes_near_float32_and_keeps_float32_weights(model, image, key):
    x = jax.random.normal(key, (8, *image))
    params, state = weights(classification(model), x)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, state))} == {jnp.dtype("float32")}
    wide = model.copy(dtype=jnp.float32)
    both = jax.jit(lambda *v: [classification(m).apply(*v, x, False)[0] for m in (model, wide)])
    half, full = both(params, state)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, full, atol=0.1 * float(jnp.std(full)) + 0.02)


@pytest.mark.parametrize(
    ("model", "image"),
    [(LeNet("S", dropout=0.5), (16, 16, 3)), (WideResNet(10, 1, dropout=0.5), (8, 8, 3))],
)
def test_dropout_draws_from_its_key_and_only_in_training(model, image, key):
    x = jax.random.normal(key, (4, *image))
    task = classification(model)
    params, state = weights(task, x)
    run = jax.jit(task.apply, static_argnums=3)
    first, again, other = (run(params, state, x, True, jax.random.key(i))[0] for i in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    np.testing.assert_array_equal(
        run(params, state, x, False, None)[0], run(params, state, x, False, jax.random.key(1))[0]
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: WideResNet(27, 10), "depth.*6n \\+ 4.*27.*22 and 28"),
        (lambda: WideResNet(28, 0), "width.*0"),
        (lambda: WideResNet(28, 10, dropout=1.0), "dropout.*1.0"),
        (lambda: LeNet("XL"), "size.*'XL'"),
        (lambda: LeNet((1, 2, 3)), "four positive widths.*\\(1, 2, 3\\)"),
        (lambda: LeNet("S", dropout=-0.1), "dropout.*-0.1"),
        (lambda: shapes(LeNet("S"), (12, 12, 3)), "16x16.*12x12"),
        (lambda: shapes(LeNet("S"), (32, 32)), "channels.*\\(1, 32, 32\\)"),
        (lambda: shapes(WideResNet(10, 1), (32, 32)), "channels.*\\(1, 32, 32\\)"),
    ],
)
def test_errors_name_the_argument_what_came_and_what_was_wanted(make, words):
    with pytest.raises(ValueError, match=words):
        make()
