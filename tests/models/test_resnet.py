"""ResNet: published sizes and costs, PyTorch's numbers, dropout behind every convolution, channels cut away, errors."""

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

from jaxtickets.ledger import sparse_forward
from jaxtickets.masks.sparsity import layer_budgets, prunable_shapes
from jaxtickets.models import ResNet


@pytest.mark.parametrize(
    ("depth", "params", "gmacs"),
    [
        (18, 11_689_512, 1.814),
        (34, 21_797_672, 3.664),
        (50, 25_557_032, 4.089),
        (101, 44_549_160, 7.801),
        (152, 60_192_808, 11.514),
    ],
)
def test_the_imagenet_form_has_torchvisions_parameters_and_multiply_adds(depth, params, gmacs):
    cost, tree = flops(ResNet(depth, 1000, "imagenet"), (224, 224, 3))
    assert count(tree) == params
    assert cost.total / 2e9 == pytest.approx(gmacs, abs=5e-4)


@pytest.mark.parametrize(
    ("depth", "classes", "params"),
    [(18, 10, 11_173_962), (18, 100, 11_220_132), (50, 10, 23_520_842)],
)
def test_the_cifar_form_has_the_parameters_that_are_quoted(depth, classes, params):
    assert count(shapes(ResNet(depth, classes), (32, 32, 3))) == params


def test_flops_of_the_cifar_form_by_hand():
    # Multiply-adds of a 3x3 convolution that keeps the width are 9 * 64 * 64 * 32 * 32 = 37,748,736 in every group (twice the
    # channels, half the side): 4 in group 1, 3 in the others. Their first one has half the inputs, their shortcut 1/18 as many.
    full = 9 * 64 * 64 * 32 * 32
    wanted = 9 * 3 * 64 * 32 * 32 + 4 * full + 3 * (3 * full + full // 2 + full // 18) + 512 * 10
    assert flops(ResNet(18), (32, 32, 3))[0].total == 2 * wanted


def test_erk_flops_of_resnet_50_are_the_reference_values():
    cost, params = flops(ResNet(50, 1000, "imagenet"), (224, 224, 3))
    assert cost.total / 1e9 == pytest.approx(8.1784, abs=5e-5)
    sizes = prunable_shapes(params)
    weights = {path: int(np.prod(shape)) for path, shape in sizes.items()}
    assert sum(weights.values()) == 25_502_912
    # Liu et al. 2022 (arXiv:2106.14568) quote 42 % and 24 %.
    for sparsity, ratio, dense in ((0.8, 0.4138, 8), (0.9, 0.2418, 1), (0.95, 0.1217, 0)):
        budgets = layer_budgets(sizes, sparsity, "erk")
        assert sparse_forward(cost, budgets, weights) / cost.total == pytest.approx(ratio, abs=5e-5)
        assert sum(budgets[path] == weights[path] for path in weights) == dense


def torch_resnet(torch, model, channels):
    """The network of the paper with one block in a group, in the style of torchvision."""
    nn = torch.nn
    bottleneck = model.depth == 14

    class Block(nn.Module):
        def __init__(self, i, width, stride):
            super().__init__()
            o = 4 * width if bottleneck else width
            if bottleneck:
                convs = [
                    nn.Conv2d(i, width, 1),
                    nn.Conv2d(width, width, 3, stride, 1),
                    nn.Conv2d(width, o, 1),
                ]
            else:
                convs = [nn.Conv2d(i, o, 3, stride, 1), nn.Conv2d(o, o, 3, 1, 1)]
            self.depth = len(convs)
            for n, conv in enumerate(convs, 1):
                conv.bias = None
                self.add_module(f"conv{n}", conv)
                self.add_module(f"bn{n}", nn.BatchNorm2d(conv.out_channels))
            if stride > 1 or i != o:
                self.shortcut, self.shortcut_bn = (
                    nn.Conv2d(i, o, 1, stride, bias=False),
                    nn.BatchNorm2d(o),
                )

        def forward(self, x):
            y = x
            for n in range(1, self.depth + 1):
                y = getattr(self, f"bn{n}")(getattr(self, f"conv{n}")(y))
                y = torch.relu(y) if n < self.depth else y
            return torch.relu(
                y + (self.shortcut_bn(self.shortcut(x)) if hasattr(self, "shortcut") else x)
            )

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            i = width = model.width
            imagenet = model.stem == "imagenet"
            self.conv = (
                nn.Conv2d(channels, i, 7, 2, 3, bias=False)
                if imagenet
                else nn.Conv2d(channels, i, 3, 1, 1, bias=False)
            )
            self.bn = nn.BatchNorm2d(i)
            self.pool = nn.MaxPool2d(3, 2, 1) if imagenet else nn.Identity()
            for group in range(1, 5):
                self.add_module(f"group{group}_block1", Block(i, width, 1 if group == 1 else 2))
                i, width = width * (4 if bottleneck else 1), width * 2
            self.classifier = nn.Linear(i, model.num_classes)

        def forward(self, x):
            x = self.pool(torch.relu(self.bn(self.conv(x))))
            for group in range(1, 5):
                x = getattr(self, f"group{group}_block1")(x)
            return self.classifier(x.mean((2, 3)))

    return Net()


@pytest.mark.parametrize(
    ("model", "image"),
    [
        (ResNet(10, width=4), (13, 16, 1)),
        (ResNet(14, num_classes=7, stem="imagenet", width=4), (40, 37, 3)),
    ],
)
def test_outputs_gradients_and_statistics_are_torchs(model, image):
    torch = others("torch")
    torch.manual_seed(0)
    compare(torch_resnet(torch, model, image[2]), model, image)


def test_every_convolution_is_dropped_and_what_the_classifier_reads():
    # Of the stem, two convolutions in each of four blocks, and three shortcuts.
    check_dropout(
        ResNet(10, width=4, dropout=0.3),
        (8, 8, 3),
        ["Conv", "BatchNorm", "Dropout"] * 12 + ["Dropout", "Dense"],
    )


def test_bottlenecks_are_dropped_too():
    calls = traced_layers(
        ResNet(14, width=4, stem="imagenet", dropout=0.5), (32, 32, 3), train=True
    )
    assert [kind for kind, _ in calls] == ["Conv", "BatchNorm", "Dropout"] * 17 + [
        "Dropout",
        "Dense",
    ]


def test_bfloat16_computes_in_bfloat16_up_to_the_mean():
    model = ResNet(14, width=4, dtype=jnp.bfloat16, stem="imagenet")
    assert [dtype for _, dtype in traced_layers(model, (32, 32, 3))] == [jnp.bfloat16] * 3 * 17 + [
        jnp.float32
    ] * 2
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes(model, (32, 32, 3)))} == {
        jnp.dtype("float32")
    }


def test_channels_may_be_cut_from_within_a_block_and_from_the_stream():
    made = [
        "group2_block1/conv1",
        "group2_block1/bn1",
        "conv",
        "bn",
        "group1_block1/conv2",
        "group1_block1/bn2",
    ]
    read = [
        "group2_block1/conv2",
        "group1_block1/conv1",
        "group2_block1/conv1",
        "group2_block1/shortcut",
    ]
    check_shrunk(ResNet(10, width=4), (8, 8, 3), [0, 2], made, read)


def test_convolutions_start_at_variance_2_over_fan_out():
    drawn = kernels(ResNet(14, width=16), (8, 8, 3))
    classifier = drawn.pop("classifier/kernel")
    for path, kernel in drawn.items():
        # 5 standard errors of the deviation of n normal draws: 6e-7 of false alarms a kernel.
        wanted = np.sqrt(2 / (kernel.shape[0] * kernel.shape[1] * kernel.shape[3]))
        np.testing.assert_allclose(
            np.std(kernel), wanted, rtol=5 / np.sqrt(2 * kernel.size), err_msg=path
        )
    np.testing.assert_allclose(
        np.std(classifier), np.sqrt(1 / 512), rtol=5 / np.sqrt(2 * classifier.size)
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ResNet(20), "one of 10, 14, 18, 34, 50, 101, 152, got 20.*ResNet\\(18\\)"),
        (lambda: ResNet([2, 2, 2, 2]), "got \\[2, 2, 2, 2\\]"),  # pyright: ignore[reportArgumentType]
        (lambda: ResNet(18, stem="tiny"), '"cifar".*"imagenet".*\'tiny\''),  # pyright: ignore[reportArgumentType]
        (lambda: ResNet(18, width=0), "width.*0"),
        (lambda: ResNet(18, dropout=1.0), "dropout.*1.0"),
        (lambda: shapes(ResNet(18), (32, 32)), "ResNet.*channels.*\\(1, 32, 32\\)"),
    ],
)
def test_errors_name_the_argument_what_came_and_what_was_wanted(make, words):
    with pytest.raises(ValueError, match=words):
        make()
