"""Names of networks lead back to the networks."""

import jax.numpy as jnp
import pytest

from jaxtickets.models import (
    MIMO,
    BatchEnsemble,
    DenseNet,
    LeNet,
    MCDropout,
    ResNet,
    TreeNet,
    WideResNet,
    classification,
    network,
)

NETWORKS = [
    LeNet("S"),
    LeNet((4, 8, 16, 8), num_classes=100, dropout=0.5, initial="torch"),
    WideResNet(10, 1, dropout=0.1, dtype=jnp.dtype("bfloat16")),
    ResNet(50, stem="imagenet", num_classes=1000),
    DenseNet((2, 2), growth=8),
    TreeNet(WideResNet(10, 1), 3),
    BatchEnsemble(LeNet("M"), 4),
    MIMO(WideResNet(10, 1), 3, batch_repetition=2, input_repetition=0.5),
    MCDropout(LeNet("L", dropout=0.5), 8, key=1),
]


@pytest.mark.parametrize("model", NETWORKS, ids=lambda model: type(model).__name__)
def test_a_name_leads_back_to_its_network(model):
    task = classification(model)
    again = network(task.name)
    assert classification(again).name == task.name
    assert type(again) is type(model)
    assert classification(again).num_classes == task.num_classes


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "names no network"),
        ("LeNet", "no class with its arguments"),
        ("VGG(16)", "VGG is not one.*LeNet, WideResNet"),
        ("os.system(ls)", "os.system is not one"),
        ("LeNet(__import__(os))", "__import__ is not one"),
        ("LeNet(lambda: 1)", "is not an argument"),
        ("WideResNet(27, 10)", "27"),
        ("LeNet(S, wheels=4)", "wheels"),
        ("LeNet(" * 2000, "names no network"),
        ("fine_tuning(bert, 2)", "fine_tuning is not one"),
    ],
)
def test_other_names(name, message):
    with pytest.raises(ValueError, match=message):
        network(name)
