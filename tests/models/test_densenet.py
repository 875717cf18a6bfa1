"""DenseNet: published sizes and costs, PyTorch's numbers, dropout behind every convolution, channels cut away, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_checks import (
    check_dropout,
    check_shrunk,
    compare,
    count,
    flops,
    kernels,
    shapes,
    traced_layers,
)
from others import others

from jaxtickets.models import DenseNet


def test_the_imagenet_form_of_121_has_torchvisions_parameters_and_multiply_adds():
    cost, tree = flops(DenseNet(121, num_classes=1000, stem="imagenet"), (224, 224, 3))
    assert count(tree) == 7_978_856
    assert cost.total / 2e9 == pytest.approx(2.834, abs=5e-4)


@pytest.mark.parametrize(
    ("depth", "growth", "params"),
    [(161, 48, 28_681_000), (169, 32, 14_149_480), (201, 32, 20_013_928)],
)
def test_other_depths_have_torchvisions_parameters(depth, growth, params):
    assert count(shapes(DenseNet(depth, growth, 1000, "imagenet"), (224, 224, 3))) == params


def test_the_cifar_form_of_121_has_the_parameters_that_are_quoted():
    assert count(shapes(DenseNet(121), (32, 32, 3))) == 6_956_298


def test_a_cifar_network_of_the_paper_has_its_parameters():
    # Table 2: DenseNet-BC, L = 100 and k = 12, 0.8 M.
    assert round(count(shapes(DenseNet((16, 16, 16), 12), (32, 32, 3))) / 1e6, 1) == 0.8


def torch_densenet(torch, model, channels):
    """The network of the paper, in the style of torchvision."""
    nn, k = torch.nn, model.growth

    class Layer(nn.Module):
        def __init__(self, i):
            super().__init__()
            self.bn1, self.conv1 = nn.BatchNorm2d(i), nn.Conv2d(i, 4 * k, 1, bias=False)
            self.bn2, self.conv2 = nn.BatchNorm2d(4 * k), nn.Conv2d(4 * k, k, 3, 1, 1, bias=False)

        def forward(self, x):
            y = self.conv1(torch.relu(self.bn1(x)))
            return torch.cat([x, self.conv2(torch.relu(self.bn2(y)))], 1)

    class Transition(nn.Module):
        def __init__(self, i):
            super().__init__()
            self.bn, self.conv = nn.BatchNorm2d(i), nn.Conv2d(i, i // 2, 1, bias=False)

        def forward(self, x):
            return nn.functional.avg_pool2d(self.conv(torch.relu(self.bn(x))), 2)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            i = 2 * k
            if model.stem == "imagenet":
                self.conv, self.stem_bn = (
                    nn.Conv2d(channels, i, 7, 2, 3, bias=False),
                    nn.BatchNorm2d(i),
                )
            else:
                self.conv = nn.Conv2d(channels, i, 3, 1, 1, bias=False)
            self.order = []
            for block, layers in enumerate(model.depth, 1):
                for layer in range(1, layers + 1):
                    self.append(f"block{block}_layer{layer}", Layer(i))
                    i += k
                if block < len(model.depth):
                    self.append(f"transition{block}", Transition(i))
                    i //= 2
            self.bn, self.classifier = nn.BatchNorm2d(i), nn.Linear(i, model.num_classes)

        def append(self, name, module):
            self.add_module(name, module)
            self.order.append(name)

        def forward(self, x):
            x = self.conv(x)
            if model.stem == "imagenet":
                x = nn.functional.max_pool2d(torch.relu(self.stem_bn(x)), 3, 2, 1)
            for name in self.order:
                x = getattr(self, name)(x)
            return self.classifier(torch.relu(self.bn(x)).mean((2, 3)))

    return Net()


@pytest.mark.parametrize(
    ("model", "image"),
    [
        (DenseNet((2, 1, 1), 3), (9, 8, 1)),  # 9 and 7 channels, halved to 4 and 3
        (DenseNet((1, 2), 4, 7, "imagenet"), (32, 29, 3)),
    ],
)
def test_outputs_gradients_and_statistics_are_torchs(model, image):
    torch = others("torch")
    torch.manual_seed(0)
    compare(torch_densenet(torch, model, image[2]), model, image)


def test_every_convolution_is_dropped_and_what_the_classifier_reads():
    # Behind the stem five convolutions: of two layers and the transition between them.
    order = [
        "Conv",
        "Dropout",
        *["BatchNorm", "Conv", "Dropout"] * 5,
        "BatchNorm",
        "Dropout",
        "Dense",
    ]
    check_dropout(DenseNet((1, 1), 4, dropout=0.3), (8, 8, 3), order)
    imagenet = traced_layers(
        DenseNet((1, 1), 4, stem="imagenet", dropout=0.3), (32, 32, 3), train=True
    )
    assert [kind for kind, _ in imagenet] == ["Conv", "BatchNorm", *order[1:]]


def test_bfloat16_computes_in_bfloat16_up_to_the_mean():
    model = DenseNet((1, 1), 4, dtype=jnp.bfloat16, stem="imagenet")
    assert [dtype for _, dtype in traced_layers(model, (32, 32, 3))] == [jnp.bfloat16] * 19 + [
        jnp.float32
    ] * 2
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes(model, (32, 32, 3)))} == {
        jnp.dtype("float32")
    }


def test_channels_may_be_cut_from_within_a_layer_and_from_the_stem():
    # The stem's channels come first in everything of their block.
    made = [
        "block2_layer1/conv1",
        "block2_layer1/bn2",
        "conv",
        "block1_layer1/bn1",
        "block1_layer2/bn1",
        "transition1/bn",
    ]
    read = ["block2_layer1/conv2", "block1_layer1/conv1", "block1_layer2/conv1", "transition1/conv"]
    check_shrunk(DenseNet((2, 1), 4), (8, 8, 3), [1, 4], made, read)


def test_convolutions_start_at_variance_2_over_fan_out():
    drawn = kernels(DenseNet((1, 1), 32), (8, 8, 3))
    classifier = drawn.pop("classifier/kernel")
    for path, kernel in drawn.items():
        # 5 standard errors of the deviation of n normal draws: 6e-7 of false alarms a kernel.
        wanted = np.sqrt(2 / (kernel.shape[0] * kernel.shape[1] * kernel.shape[3]))
        np.testing.assert_allclose(
            np.std(kernel), wanted, rtol=5 / np.sqrt(2 * kernel.size), err_msg=path
        )
    np.testing.assert_allclose(
        np.std(classifier), np.sqrt(1 / 80), rtol=5 / np.sqrt(2 * classifier.size)
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DenseNet(100), "one of 121, 161, 169, 201, or .*\\(6, 12, 24, 16\\), got 100"),
        (lambda: DenseNet([]), "depth.*\\(\\)"),
        (lambda: DenseNet((6, 0)), "depth.*\\(6, 0\\)"),
        (lambda: DenseNet("121"), "depth.*'121'"),  # pyright: ignore[reportArgumentType]
        (lambda: DenseNet(growth=0), "growth.*0"),
        (lambda: DenseNet(stem="tiny"), '"cifar".*"imagenet".*\'tiny\''),  # pyright: ignore[reportArgumentType]
        (lambda: DenseNet(dropout=-0.1), "dropout.*-0.1"),
        (lambda: shapes(DenseNet(), (32, 32)), "DenseNet.*channels.*\\(1, 32, 32\\)"),
        (lambda: shapes(DenseNet(), (8, 7, 3)), "8x8.*8x7.*fewer blocks"),
        (lambda: shapes(DenseNet((1, 1), 4, stem="imagenet"), (4, 5, 3)), '5x5.*4x5.*stem="cifar"'),
    ],
)
def test_errors_name_the_argument_what_came_and_what_was_wanted(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_the_smallest_images_pass():
    assert count(shapes(DenseNet((1, 1), 4, stem="imagenet"), (5, 5, 3))) == count(
        shapes(DenseNet((1, 1), 4, stem="imagenet"), (64, 64, 3))
    )
    assert shapes(DenseNet((1, 1, 1, 1), 4), (8, 8, 3))
