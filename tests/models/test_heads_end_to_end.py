"""One of each kind, from plan to evaluation and through a ticket file."""

from typing import ClassVar

import jax
import numpy as np
import pytest
from flax import linen as nn

import jaxtickets as jt
from jaxtickets.models import MIMO, BatchEnsemble, MCDropout, TreeNet
from jaxtickets.models.layers import Dense
from jaxtickets.plan import Collect, Length, Plan, Start, Train
from jaxtickets.schedules import Constant


class Small(nn.Module):
    """Somebody's own network; it compiles in no time."""

    num_classes: int = 10
    stages: ClassVar[tuple[str, ...]] = ("hidden", "out")

    @nn.compact
    def __call__(self, x, train, stages=stages):
        if "hidden" in stages:
            x = nn.relu(Dense(32, name="hidden")(x.reshape(x.shape[0], -1)))
            x = nn.Dropout(0.2, deterministic=not train)(x)
        return Dense(self.num_classes, name="out")(x) if "out" in stages else x


NET = Small()
KINDS = [
    TreeNet(NET, 2),
    BatchEnsemble(NET, 2),
    MIMO(NET, 2, batch_repetition=2),
    MCDropout(NET, 2, key=0),
]
PLAN = Plan("short", (Start(1, 0.5), Train(Length(3, "steps"), Constant(0.05)), Collect()), 16)


@pytest.mark.parametrize("model", KINDS, ids=lambda model: type(model).__name__)
def test_fit_evaluate_save_and_load(model, tmp_path):
    task, (train, test) = jt.classification(model), jt.data.pair("digits")
    tickets = jt.fit(PLAN, task, train, key=0, progress=False)
    assert len(tickets) == 1
    predicted = tickets.member_log_proba(test)
    assert predicted.shape == (2, len(test), 10)
    assert not np.allclose(*predicted)  # no head repeats another
    found = jt.evaluate(tickets, test)
    wanted = np.exp(predicted.astype(np.float64)).mean(0)
    assert found.ensemble.accuracy == (wanted.argmax(-1) == test.y).mean()
    assert found.ensemble.nll == pytest.approx(
        -np.log(wanted[np.arange(len(test)), test.y]).mean(), rel=1e-5
    )
    assert [member.accuracy for member in found.members] == [
        (head.argmax(-1) == test.y).mean() for head in predicted
    ]
    ticket = tickets.tickets[0]
    pruned = [
        np.asarray(p)[~np.asarray(m)]
        for p, m in zip(jax.tree.leaves(ticket.params), jax.tree.leaves(ticket.mask), strict=True)
        if np.ndim(m)
    ]
    assert sum(map(len, pruned)) > 0
    assert all((values == 0).all() for values in pruned)
    tickets.save(tmp_path / "t.safetensors")
    loaded = jt.load(tmp_path / "t.safetensors", task)
    np.testing.assert_array_equal(loaded.member_log_proba(test), predicted)
