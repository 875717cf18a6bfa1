"""How members lie on the hardware changes speed and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxtickets import members
from jaxtickets.members import Layout


def step(state, rate, key):
    # Halves of small integers and uniform bits: one rounding, in whatever program.
    return {"w": state["w"] * rate + jax.random.uniform(key, (3,)), "n": state["n"] + 1}


@pytest.mark.parametrize("across", members.ACROSS)
def test_a_step_over_members_is_the_step_of_each(across):
    keys = jax.random.split(jax.random.key(0), 3)
    state = {"w": jnp.arange(9.0).reshape(3, 3), "n": jnp.arange(3)}
    out = members.over_members(step, (True, False, True), across)(state, 0.5, keys)
    for i in range(3):
        alone = step(members.member(state, i), 0.5, keys[i])
        for a, b in zip(
            jax.tree.leaves(members.member(out, i)), jax.tree.leaves(alone), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    again = members.stack([members.member(out, i) for i in range(3)])
    assert all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(out), strict=True)
    )


def test_a_members_key_does_not_depend_on_how_many_there_are():
    few, many = (jax.random.key_data(members.member_keys(3, count)) for count in (2, 5))
    np.testing.assert_array_equal(few, many[:2])
    assert len(np.unique(many, axis=0)) == 5
    np.testing.assert_array_equal(
        jax.random.key_data(members.member_keys(jax.random.key(3), 2)), few
    )
    np.testing.assert_array_equal(
        jax.random.key_data(members.member_keys(jax.random.PRNGKey(3), 2)), few
    )


def test_keys_given_are_taken_as_they_are():
    keys = jax.random.split(jax.random.key(0), 3)
    np.testing.assert_array_equal(
        jax.random.key_data(members.member_keys(keys, 3)), jax.random.key_data(keys)
    )
    with pytest.raises(ValueError, match="one key for each of the 2 members; got keys of shape"):
        members.member_keys(keys, 2)


def test_seeds_are_threefry_whatever_the_default():
    with jax.default_prng_impl("rbg"):
        assert str(jax.random.key_impl(members.member_keys(0, 2))) == "threefry2x32"


@pytest.mark.parametrize(("count", "group"), [(1, 1), (5, 2), (6, 3), (2, 4)])
def test_groups_cover_every_member_once(count, group):
    parts = members.groups(count, Layout(group))
    assert [i for part in parts for i in part] == list(range(count))
    assert max(map(len, parts)) <= group


def test_default_layouts():
    assert members.default_layout(5, "cpu") == Layout(1, "unroll")
    one = members.default_layout(5, "gpu", jax.devices()[:1])
    assert (one.group, one.across, one.mesh) == (5, "vmap", None)
    assert one.steps_per_call > 1
    for lineages, children, group in (
        (1, 6, 6),
        (1, 128, 8),
        (3, 18, 6),
        (4, 20, 5),
        (9, 36, 3),
        (10, 20, 5),
        (11, 22, 1),
    ):
        layout = members.default_layout(children, "gpu", jax.devices()[:1], lineages)
        assert (
            layout.group == group
        )  # children fill their groups, and so do their parents unless one holds them all


def test_fewer_members_than_a_group_take_all_devices():
    devices = np.asarray(range(8), object)
    wide = Layout(4, mesh=Mesh(np.asarray(jax.devices()[:1]).reshape(1, 1), ("member", "data")))
    assert members.for_members(wide, 3) == Layout(3, mesh=wide.mesh)
    assert members.for_members(Layout(4, "unroll"), 1) == Layout(1, "unroll")
    for count, rows in ((1, 1), (2, 2), (3, 1), (6, 2), (8, 8)):
        assert dict(members.member_mesh(count, devices.tolist()).shape) == {
            "member": rows,
            "data": 8 // rows,
        }


def mesh(*axes):
    return Mesh(np.asarray(jax.devices()[:1]).reshape((1,) * len(axes)), axes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Layout(0), "group and steps_per_call are at least 1; got 0 and 1"),
        (lambda: Layout(1, steps_per_call=0), "got 1 and 0"),
        (lambda: Layout(1, "pmap"), "across is 'unroll', 'vmap' or 'map'; got 'pmap'"),  # pyright: ignore[reportArgumentType]
        (lambda: Layout(1, mesh=mesh("data", "member")), "axes 'member' and 'data', in this order"),
        (lambda: Layout(1, "unroll", mesh=mesh("member", "data")), "use across='vmap' or 'map'"),
    ],
)
def test_impossible_layouts_say_so(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_without_a_mesh_nothing_is_sharded():
    assert members.sharding(Layout(1), "member") is None
    placed = members.place({"a": np.arange(3)}, Layout(1), "member")
    assert isinstance(placed["a"], jax.Array)
    assert isinstance(members.fetch(placed)["a"], np.ndarray)
