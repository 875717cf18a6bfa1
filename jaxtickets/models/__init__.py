"""Networks (Linen, channels last) and `classification`, which makes a task of a network."""

from jaxtickets.models.lenet import LeNet
from jaxtickets.models.tasks import classification
from jaxtickets.models.wide_resnet import WideResNet

__all__ = ["LeNet", "WideResNet", "classification"]
