"""What `classification` makes of a network of several heads, and what such networks cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtickets as jt
from jaxtickets.dataset import Dataset
from jaxtickets.models import MIMO, BatchEnsemble, MCDropout, TreeNet, WideResNet, classification

WIDE = WideResNet(28, 10)
BLANK = Dataset(
    np.broadcast_to(np.zeros((1, 32, 32, 3), np.float32), (50_000, 32, 32, 3)),
    np.broadcast_to(np.int32(0), 50_000),
    10,
    name="blank",
)

# Training and prediction as multiples of the plain WRN-28-10. Whitaker and Whitley, table 2, say 1.52x, 4.40x (more
# than M passes: batch repetition, they write), 4.00x and 1.00x of training. M dropout passes share the first two layers.
COSTS = {
    "TreeNet M=3": (TreeNet(WIDE, 3), 1.54, 1.54),
    "BatchEnsemble M=4": (BatchEnsemble(WIDE, 4), 4.00, 4.00),
    "MIMO M=3": (MIMO(WIDE, 3), 4.00, 1.00),
    "MC dropout M=3": (MCDropout(WideResNet(28, 10, dropout=0.3), 3, key=0), 1.00, 2.99),
}


@pytest.mark.parametrize("name", COSTS)
def test_costs_on_wrn_28_10_are_near_the_papers(name):
    model, training, inference = COSTS[name]
    ledger = jt.cost(jt.dense(1), classification(model), BLANK)
    assert ledger.forward_dense == pytest.approx(10.4867e9, rel=1e-4)
    assert (ledger.training, ledger.inference) == (
        pytest.approx(training, abs=0.01),
        pytest.approx(inference, abs=0.01),
    )


def test_tasks_of_equal_networks_are_equal_and_name_the_call():
    first, second = (
        classification(TreeNet(WideResNet(28, 10), 3), label_smoothing=0.1) for _ in range(2)
    )
    assert first == second
    assert hash(first) == hash(second)
    assert first.name == "TreeNet(WideResNet(28, 10), 3)"
    assert (first.heads, first.num_classes) == (3, 10)
    assert first.plain == classification(WideResNet(28, 10), label_smoothing=0.1)
    assert first != classification(TreeNet(WideResNet(28, 10), 3))
    assert classification(TreeNet(WideResNet(28, 10), 2)).init != first.init


def test_label_smoothing_reaches_every_head(key):
    task = classification(TreeNet(WIDE, 3), label_smoothing=0.3)
    assert task.plain is not None
    logits, y = jax.random.normal(key, (3, 5, 10)), jnp.arange(5)
    each = [task.plain.loss(head, y) for head in logits]
    np.testing.assert_allclose(task.loss(logits, y), jnp.stack(each).sum(0), rtol=1e-6)
