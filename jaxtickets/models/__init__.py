"""Networks (Linen, channels last) and `classification`, which makes a task of a network.

`TreeNet`, `BatchEnsemble`, `MIMO` and `MCDropout` are ensembles inside one network: each takes a
plain network and gives several predictions of every example. `TextClassifier` and `MaskedLM` are
BERT and RoBERTa, whose checkpoints `read_checkpoint` reads and `save_pretrained` writes.
"""

from jaxtickets.models.batch_ensemble import BatchEnsemble
from jaxtickets.models.checkpoint import Checkpoint, read_checkpoint
from jaxtickets.models.checkpoint_writing import save_pretrained
from jaxtickets.models.densenet import DenseNet
from jaxtickets.models.lenet import LeNet
from jaxtickets.models.masking import MaskTokens
from jaxtickets.models.mc_dropout import MCDropout
from jaxtickets.models.mimo import MIMO
from jaxtickets.models.names import network
from jaxtickets.models.regressors import regression
from jaxtickets.models.resnet import ResNet
from jaxtickets.models.tasks import classification
from jaxtickets.models.text_tasks import fine_tuning, masked_language_modelling
from jaxtickets.models.transformer import ENCODER_KERNELS, Encoder, MaskedLM, TextClassifier
from jaxtickets.models.transformer_config import TransformerConfig
from jaxtickets.models.tree_net import TreeNet
from jaxtickets.models.wide_resnet import WideResNet

__all__ = [
    "ENCODER_KERNELS",
    "MIMO",
    "BatchEnsemble",
    "Checkpoint",
    "DenseNet",
    "Encoder",
    "LeNet",
    "MCDropout",
    "MaskTokens",
    "MaskedLM",
    "ResNet",
    "TextClassifier",
    "TransformerConfig",
    "TreeNet",
    "WideResNet",
    "classification",
    "fine_tuning",
    "masked_language_modelling",
    "network",
    "read_checkpoint",
    "regression",
    "save_pretrained",
]
