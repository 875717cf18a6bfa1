"""Batches of short sequences are cut: the networks see fewer tokens and the tickets stay what they were."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtickets as jt
from jaxtickets.dataset import Dataset
from jaxtickets.engine.host_rows import make_feed
from jaxtickets.plan import Collect, Length, Plan, Start, Train
from jaxtickets.schedules import Constant

TOKENS, WORDS = 12, 9
SEEN = []  # lengths that the network was traced with


def sentences(buckets, augment=None):
    rng = np.random.default_rng(0)
    lengths = np.concatenate([rng.integers(2, 5, 47), [11]])
    there = np.arange(TOKENS) < lengths[:, None]
    ids = np.where(there, rng.integers(1, WORDS, there.shape), 0).astype(np.uint16)
    y = (ids == 3).any(1).astype(np.int32)
    x = {"input_ids": ids, "attention_mask": there, "weight": np.ones(len(y), np.float32)}
    return Dataset(x, y, 2, name="sentences", augment=augment, buckets=buckets)


def init(key, x):
    return {"w": jax.random.normal(key, (WORDS, 2))}, {}


def apply(params, state, x, train, key):
    SEEN.append(x["input_ids"].shape[-1])
    each = jax.nn.one_hot(x["input_ids"], WORDS) * x["attention_mask"][..., None].astype(
        jnp.float32
    )
    return jnp.matmul(each.sum(-2), params["w"]) * x["weight"][:, None], state


@dataclasses.dataclass(frozen=True)
class Replace:
    """An augmentation whose draws depend on the shape it sees."""

    def __call__(self, key, x):
        return x | {
            "input_ids": jnp.where(
                jax.random.bernoulli(key, 0.2, x["input_ids"].shape), 1, x["input_ids"]
            )
        }


def task():
    """A new one each time, so that nothing of it is compiled yet."""
    return jt.classification((init, lambda *args: apply(*args)), num_classes=2, name="bag of words")


PLAN = Plan("words", (Start(3), Train(Length(2), Constant(0.1)), Collect()), 8)


def weights(tickets):
    return np.stack([t.params["w"] for t in tickets])


@pytest.mark.parametrize("augment", [None, Replace()])
@pytest.mark.parametrize("layout", [jt.Layout(1, "unroll"), jt.Layout(3, "vmap", steps_per_call=2)])
def test_training_and_prediction_do_not_depend_on_the_buckets(layout, augment):
    network = task()
    whole = jt.fit(PLAN, network, sentences((), augment), key=0, layout=layout, progress=False)
    SEEN.clear()
    cut = jt.fit(
        PLAN, network, sentences((4, 8, 12), augment), key=0, layout=layout, progress=False
    )
    assert set(SEEN) == {4, 12}
    np.testing.assert_allclose(
        weights(cut), weights(whole), atol=1e-6
    )  # counts are exact; the gradient's sums are float32
    SEEN.clear()
    short = sentences((4, 8, 12))
    proba = cut.predict_proba(short, batch_size=8)
    assert set(SEEN) == {4, 12}
    np.testing.assert_allclose(proba, cut.predict_proba(sentences(()), batch_size=7), atol=1e-6)
    np.testing.assert_allclose(proba, cut.predict_proba(short.x, batch_size=48), atol=1e-6)


def test_a_batch_is_cut_to_the_longest_of_all_its_members():
    """One member at a time cuts more often than three together, and a scan of several steps to the longest of them."""
    data = sentences((4, 12))
    found = {}
    for layout in (jt.Layout(1, "unroll"), jt.Layout(3, "unroll")):
        feed = make_feed(data, 8, layout)
        keys = jt.member_keys(0, 3)
        groups = [keys[i : i + 1] for i in range(3)] if layout.group == 1 else [keys]
        lengths = []
        for group in groups:
            own = feed.for_members(group, layout)
            lengths.append(
                [
                    [own.bucket_length(epoch, position) for position in range(6)]
                    for epoch in range(4)
                ]
            )
            one = own.bucket_length(0, 0, 6)
            assert one == max(lengths[-1][0])
        found[layout.group] = np.asarray(lengths)
    np.testing.assert_array_equal(found[1].max(0), found[3][0])
    assert (found[1] == 4).any()
