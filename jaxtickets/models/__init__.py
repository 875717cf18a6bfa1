"""Networks (Linen, channels last) and `classification`, which makes a task of a network.

`TreeNet`, `BatchEnsemble`, `MIMO` and `MCDropout` are ensembles inside one network: each takes a plain network and gives
several predictions of every example.
"""

from jaxtickets.models.batch_ensemble import BatchEnsemble
from jaxtickets.models.densenet import DenseNet
from jaxtickets.models.lenet import LeNet
from jaxtickets.models.mc_dropout import MCDropout
from jaxtickets.models.mimo import MIMO
from jaxtickets.models.resnet import ResNet
from jaxtickets.models.tasks import classification
from jaxtickets.models.tree_net import TreeNet
from jaxtickets.models.wide_resnet import WideResNet

__all__ = ["MIMO", "BatchEnsemble", "DenseNet", "LeNet", "MCDropout", "ResNet", "TreeNet", "WideResNet", "classification"]
