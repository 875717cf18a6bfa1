"""Networks in PyTorch eager, with the masked training step that the benchmark compares with.

LeNet-L, WRN-16-4, and a BERT of `transformers`.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """A pre-activation block of a wide residual network."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = (
            nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, I, H, W] to [B, O, H / stride, W / stride]."""
        y = F.relu(self.bn1(x), inplace=True)
        x = x if self.shortcut is None else self.shortcut(y)
        return x + self.conv2(F.relu(self.bn2(self.conv1(y)), inplace=True))


def wide_resnet(depth: int, width: int) -> nn.Sequential:
    """WRN-depth-width for 32x32 images and 10 classes."""
    channels, layers = 16, [nn.Conv2d(3, 16, 3, 1, 1, bias=False)]
    for group, outputs in enumerate((16 * width, 32 * width, 64 * width)):
        for block in range((depth - 4) // 6):
            layers.append(Block(channels, outputs, 2 if group and not block else 1))  # type: ignore[arg-type]
            channels = outputs
    return nn.Sequential(
        *layers,
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, 10),
    )


def lenet_l() -> nn.Sequential:
    """LeNet-L for 32x32 images and 10 classes."""
    features = [
        nn.Conv2d(3, 64, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
    ]
    return nn.Sequential(
        *features,
        nn.Linear(3200, 1024),
        nn.ReLU(),
        nn.Linear(1024, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )


class TorchStepper:
    """LeNet-L or WRN-16-4 in PyTorch; calling it takes one masked training step."""

    def __init__(
        self, name: str, kind: str, batch: tuple[jax.Array, jax.Array], channels_last: bool = False
    ) -> None:
        torch.manual_seed(0)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        network: Any = lenet_l() if name == "LeNet-L" else wide_resnet(16, 4)
        self.network = network.to(memory_format=layout)
        self.x = torch.from_numpy(np.asarray(batch[0]).transpose(0, 3, 1, 2).copy()).to(
            memory_format=layout
        )
        self.y = torch.from_numpy(np.asarray(batch[1]).astype(np.int64))
        params: Any = self.network.parameters()
        adam, sgd = torch.optim.Adam, torch.optim.SGD
        self.optimizer: Any = (
            adam(params, lr=1e-3)
            if kind == "adam"
            else sgd(params, lr=0.1, momentum=0.9, weight_decay=5e-4)
        )
        kernels = [p for p in self.network.parameters() if p.ndim > 1]
        self.masked = [(p, (torch.rand_like(p) < 0.2).to(p.dtype)) for p in kernels]

    def __call__(self) -> float:
        """Take one training step and return the loss."""
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.network(self.x), self.y)
        loss.backward()
        with torch.no_grad():
            for p, mask in self.masked:
                assert p.grad is not None
                p.grad.mul_(mask)
        self.optimizer.step()
        with torch.no_grad():
            for p, mask in self.masked:
                p.mul_(mask)
        return float(loss.detach())


class TorchTextStepper:
    """A BERT of `transformers`; calling it takes one masked fine-tuning step.

    With AdamW, clipping, and dropout as its config has it.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        batch: tuple[dict[str, np.ndarray], np.ndarray],
        share: float,
    ) -> None:
        from transformers import BertConfig, BertForSequenceClassification

        torch.manual_seed(0)
        config = BertConfig(
            **{
                name: value
                for name, value in settings.items()
                if name not in ("model_type", "architectures")
            }
        )
        self.network: Any = BertForSequenceClassification(config).train()
        self.x = {
            name: torch.from_numpy(array.astype(np.int64)) for name, array in batch[0].items()
        }
        self.y = torch.from_numpy(batch[1].astype(np.int64))
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=2e-5, weight_decay=0.0)
        pruned = ("bert.encoder", "bert.pooler")
        kernels = [
            p
            for name, p in self.network.named_parameters()
            if name.startswith(pruned) and p.ndim == 2
        ]
        self.masked = [(p, (torch.rand_like(p) >= share).to(p.dtype)) for p in kernels]

    def __call__(self) -> float:
        """Take one fine-tuning step and return the loss."""
        self.optimizer.zero_grad()
        loss = self.network(**self.x, labels=self.y).loss
        loss.backward()
        with torch.no_grad():
            for p, mask in self.masked:
                assert p.grad is not None
                p.grad.mul_(mask)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            for p, mask in self.masked:
                p.mul_(mask)
        return loss.item()
