"""LeNet's weights as PyTorch draws them."""

import jax
import numpy as np
import pytest
from others import others

from jaxtickets.models import LeNet


def test_torch_initial_weights_are_spread_as_torchs_own():
    """Kernels and biases of the same widths, drawn by both: equal bounds, and equal distributions."""
    torch = others("torch")
    params = LeNet("M", initial="torch").init(
        jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32), train=False
    )["params"]
    torch.manual_seed(0)
    layers = {
        "conv1": torch.nn.Conv2d(3, 32, 5),
        "conv2": torch.nn.Conv2d(32, 64, 5),
        "dense1": torch.nn.Linear(64 * 25, 512),
        "dense2": torch.nn.Linear(512, 256),
        "classifier": torch.nn.Linear(256, 10),
    }
    from scipy.stats import ks_2samp

    for name, layer in layers.items():
        for ours, theirs in (
            (params[name]["kernel"], layer.weight),
            (params[name]["bias"], layer.bias),
        ):
            a, b = np.asarray(ours).ravel(), theirs.detach().numpy().ravel()
            assert a.size == b.size
            bound = 1 / np.sqrt(layer.weight[0].numel())
            assert max(abs(a).max(), abs(b).max()) <= bound * (1 + 1e-6)
            assert (
                ks_2samp(a, b).pvalue > 1e-4
            )  # ten comparisons of fixed draws: one in a thousand seeds would fail


def test_initial_is_one_of_two():
    with pytest.raises(ValueError, match='initial must be "lecun" or "torch", got \'he\''):
        LeNet("M", initial="he")
