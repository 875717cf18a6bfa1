"""The automatic layout: measured, fitted to the device's memory, kept, and taken again."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_task import data, dst, edst, fit, leaves, ltr, pat, same, shrunk, task

import jaxtickets as jt
from jaxtickets.engine import device_memory, driver, measured_layouts
from jaxtickets.engine.phase_steps import run_phase
from jaxtickets.engine.programs import Programs
from jaxtickets.errors import PlanError, RunError
from jaxtickets.members import Layout
from jaxtickets.plan import L1, Collect, Length, Plan, Start, Train
from jaxtickets.schedules import Linear


@pytest.fixture(autouse=True)
def a_home(tmp_path_factory, monkeypatch):
    """Where measurements are kept."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv(device_memory.VARIABLE, raising=False)
    return home


def layout_of(folder):
    return json.loads((folder / "layout.json").read_bytes())


def same_tickets(some, others):
    return len(some) == len(others) and all(map(same, some, others))


def test_a_cpu_is_as_it_was(tmp_path, capsys, a_home):
    fit(dst(2), out=tmp_path, progress=True)
    found = layout_of(tmp_path)
    assert (found["group"], found["across"], found["steps_per_call"]) == (1, "unroll", 1)
    assert "layout" not in capsys.readouterr().err
    assert not list(a_home.iterdir())


def test_measuring_changes_no_bit_is_told_and_is_kept(tmp_path, capsys):
    plan, measured = dst(2), jt.AutoLayout(measure=True)
    tickets = fit(plan, out=tmp_path / "a", layout=measured, progress=True)
    found, said = layout_of(tmp_path / "a"), capsys.readouterr().err
    assert "layout: measuring unroll, vmap, map ..." in said
    assert said.count("milliseconds of a member's step: ") == 1
    layout = Layout(found["group"], found["across"], found["steps_per_call"])
    assert same_tickets(tickets, fit(plan, layout=layout))
    # One entry, of all three ways or those that were not given up.
    (entry,) = json.loads((a_home_file()).read_bytes()).values()
    assert set(entry) <= {"unroll", "vmap", "map"}
    assert min(entry, key=entry.get) == found["across"]
    # What was measured is a hint for the next run of the kind: say that vmap was the fastest.
    a_home_file().write_text(json.dumps({key_of_only_entry(): {"vmap": 1e-4, "map": 2e-4}}))
    fit(plan, out=tmp_path / "b", layout=jt.AutoLayout(memory=2**40), progress=True)
    assert layout_of(tmp_path / "b")["across"] == "vmap"
    assert "vmap 0.1, map 0.2, as measured before" in " ".join(capsys.readouterr().err.split())


def a_home_file():
    from pathlib import Path

    return Path(measured_layouts.FILE).expanduser()


def key_of_only_entry():
    return next(iter(json.loads(a_home_file().read_bytes())))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"key": 3}',
        '{"key": {}}',
        '{"key": {"pmap": 1.0}}',
        '{"key": {"vmap": true}}',
        '{"key": {"vmap": 1e999}}',
        "[" * 100_000,
    ],
)
def test_a_cache_that_cannot_be_right_is_measured_again(text):
    a_home_file().parent.mkdir(parents=True)
    a_home_file().write_text(text)
    assert measured_layouts.read_measured("key") is None
    measured_layouts.keep_measured("key", {"map": 0.5, "vmap": 0.25})
    assert list(measured_layouts.read_measured("key") or ()) == ["vmap", "map"]


def test_a_cache_that_cannot_be_written_is_done_without():
    a_home_file().parent.parent.mkdir(parents=True)
    a_home_file().parent.write_text("a file where the folder would be")
    measured_layouts.keep_measured("key", {"map": 0.5})
    assert measured_layouts.read_measured("key") is None


def test_a_stated_limit_halves_the_group_and_is_told(tmp_path, capsys):
    plan = dst(4)
    fit(plan, out=tmp_path / "all", layout=jt.AutoLayout(across="vmap", memory=2**40))
    assert layout_of(tmp_path / "all")["group"] == 4
    wanted = need_of(plan, 4), need_of(plan, 2)
    assert wanted[1] < wanted[0]
    memory = (wanted[0] + wanted[1]) // 2
    auto = jt.AutoLayout(across="vmap", memory=memory)
    tickets = fit(plan, out=tmp_path / "half", layout=auto, progress=True)
    said = " ".join(capsys.readouterr().err.split())
    assert layout_of(tmp_path / "half")["group"] == 2
    assert "layout: 2 members at a time, vmapped (4 members together would hold" in said
    assert same_tickets(tickets, fit(plan, layout=Layout(2, "vmap")))


def need_of(plan, group):
    """Bytes of the largest program of a run."""
    needs = []
    weigh = Programs._weigh

    def note(self, program):
        weigh(self, program)
        needs.append(self.largest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Programs, "_weigh", note)
        fit(plan, layout=Layout(group, "vmap"))
    return max(needs)


def test_the_environment_states_a_limit_too(tmp_path, monkeypatch):
    plan = dst(4)
    monkeypatch.setenv(device_memory.VARIABLE, f"{(need_of(plan, 4) + need_of(plan, 2)) // 2} B")
    fit(plan, out=tmp_path, layout=jt.AutoLayout(across="vmap", measure=False))
    assert layout_of(tmp_path)["group"] == 2
    for text in ("much", "-1GB", "0", "3 PB", "1e400", "9" * 400):
        monkeypatch.setenv(device_memory.VARIABLE, text)
        with pytest.raises(PlanError, match="JAXTICKETS_DEVICE_MEMORY is the memory of a device"):
            fit(plan, layout=jt.AutoLayout(across="vmap"))
    for text, size in (("12GiB", 12 * 2**30), ("1.5 kb", 1500), ("7", 7), ("2M", 2_000_000)):
        monkeypatch.setenv(device_memory.VARIABLE, text)
        assert device_memory.stated_memory() == size


def test_running_out_at_the_first_step_halves_the_group_and_is_told(tmp_path, capsys, monkeypatch):
    plan, compiled = dst(4), Programs._compile

    def fails(self, step, args, donate, runs_once):
        program = compiled(self, step, args, donate, runs_once)
        if len(args) < 6 or args[2].shape[0] <= 2:  # no training, or of few
            return program

        def run_out(*args):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 7 bytes")

        return run_out

    with monkeypatch.context() as patch:
        patch.setattr(Programs, "_compile", fails)
        auto = jt.AutoLayout(across="map", memory=2**40)
        tickets = fit(plan, out=tmp_path, layout=auto, progress=True)
    said = " ".join(capsys.readouterr().err.split())
    assert layout_of(tmp_path)["group"] == 2
    assert "2 members at a time, mapped (4 members together ran out of the device's memory)" in said
    assert same_tickets(tickets, fit(plan, layout=Layout(2, "map")))


def test_what_is_too_short_to_measure_is_not(tmp_path, capsys, a_home):
    short = Plan("short", (Start(2), Train(Length(1, "steps")), Collect()), 16)
    fit(short, out=tmp_path, layout=jt.AutoLayout(measure=True), progress=True)
    said = " ".join(capsys.readouterr().err.split())
    assert "too short to measure" in said
    assert "measuring" not in said
    assert not list(a_home.rglob("layouts.json"))


@pytest.mark.parametrize(("members", "words"), [(4, "4 members together"), (1, "one member alone")])
def test_running_out_later_names_the_phase_and_what_takes_less(
    members, words, tmp_path, monkeypatch
):
    """In the training after the first, which no trial sees."""

    def runs_out(phase, run, group, index, *args):
        if index == 3:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 7 bytes")
        return run_phase(phase, run, group, index, *args)

    monkeypatch.setattr(driver, "run_phase", runs_out)
    advice = r"AutoLayout\(2\) \(--members-together 2\)" if members > 1 else "a smaller batch"
    two = Plan("two", (Start(members), *(Train(Length(2, "steps")), Collect()) * 2), 16)
    with pytest.raises(
        RunError, match=rf"phase 4 of 5, Train.*: {words} ran out .* Give .*{advice}"
    ):
        fit(two, out=tmp_path, layout=Layout(members, "vmap"))
    assert not (tmp_path / "tickets.safetensors").exists()


def test_data_that_does_not_fit_is_streamed_and_nothing_else_changes(tmp_path, capsys):
    """24,000 points take 864 kB, which leaves the 0.6 MB no room beside them."""
    plan = edst(2, explore=jt.Length(5, "steps"), refine=jt.Length(4, "steps"))
    points = data(24_000)
    auto = jt.AutoLayout(across="vmap", memory=600_000)
    tickets = fit(plan, points, out=tmp_path, layout=auto, progress=True)
    assert layout_of(tmp_path)["streamed"]
    assert "the data does not fit" in " ".join(capsys.readouterr().err.split())
    for a, b in zip(tickets, fit(plan, points, layout=Layout(2, "vmap")), strict=True):
        # The same rows, noise and sums, in a program that does not gather: XLA may fuse and round
        # it differently in the last bits; nine steps at 0.1 keep that far below 1e-4.
        for x, y in zip(leaves((a.mask, a.model_state)), leaves((b.mask, b.model_state))):
            np.testing.assert_array_equal(x, y)
        for x, y in zip(leaves(a.params), leaves(b.params), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-4)


def test_nothing_that_fits_says_so_before_anything_is_trained(tmp_path):
    with pytest.raises(
        RunError, match=r"one member alone .* would hold .* and nothing smaller is left to try"
    ):
        fit(dst(2), out=tmp_path, layout=jt.AutoLayout(across="vmap", memory=100))


def test_a_run_goes_on_with_the_layout_that_it_began_with(tmp_path, monkeypatch, capsys):
    from jaxtickets.engine.checkpoints import Checkpoints

    plan, save, left = pat(4), Checkpoints.save, iter(range(9))

    def stops(self, *args):
        save(self, *args)
        if next(left) == 8:
            raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", stops)
        with pytest.raises(InterruptedError):
            fit(plan, out=tmp_path, layout=Layout(2, "map", 2), checkpoint_every=0)
    tickets = fit(plan, out=tmp_path)  # nothing is asked for: not the CPU's one by one
    assert same_tickets(tickets, fit(plan, layout=Layout(2, "map", 2)))


def test_a_layout_file_that_cannot_be_right_is_told(tmp_path):
    fit(dst(1), out=tmp_path)
    (tmp_path / "tickets.safetensors").unlink()
    (tmp_path / "layout.json").write_text('{"group": "all"}')
    with pytest.warns(UserWarning, match=r"layout\.json cannot be read; the layout is chosen anew"):
        fit(dst(1), out=tmp_path)
    assert layout_of(tmp_path)["group"] == 1


@pytest.mark.parametrize(
    "plan",
    [
        edst(2),
        pat(4),
        ltr(2),
        shrunk(2),
        jt.imp(
            2, 0.5, 2, 1, lr=Linear(0.02), batch_size=16, penalty=L1(0.03, "random", share=0.75)
        ),
        edst(2, explore=3, update_every=2, channels=0.5, sparsity=0.3),
    ],
    ids=["edst", "pat", "ltr", "shrunk", "imp", "channels"],
)
def test_every_phase_is_the_same_mapped_but_for_rounding(plan):
    """As `test_member_i_of_any_layout_equals_a_lone_run_of_its_key`, whose tolerance is explained there."""
    mapped, alone = fit(plan, layout=Layout(2, "map")), fit(plan)
    for a, b in zip(mapped, alone, strict=True):
        assert same(a._replace(params={}), b._replace(params={}))
        for x, y in zip(leaves(a.params), leaves(b.params), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-4)


def test_mapped_members_change_their_masks_in_a_real_branch():
    """At a step without an update no member ranks its weights: the program has a conditional, not a
    select between two masks.
    """
    texts = []
    compiled = Programs._compile

    def note(self, step, args, donate, runs_once):
        texts.append((jax.make_jaxpr(step)(*args), len(args)))
        return compiled(self, step, args, donate, runs_once)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Programs, "_compile", note)
        fit(dst(3), layout=Layout(3, "map"))
    (training,) = (jaxpr for jaxpr, args in texts if args > 5)
    (loop,) = (eqn for eqn in training.jaxpr.eqns if eqn.primitive.name == "scan")
    branches = conds(loop)
    assert branches, "the mask is chosen outside of a branch"
    assert all(eqn.invars[0].aval.shape == () for eqn in branches)


def conds(eqn):
    from jaxtickets.tracing.jaxprs import subjaxprs

    found = [eqn] if eqn.primitive.name == "cond" else []
    for jaxpr in subjaxprs(eqn):
        for inner in jaxpr.eqns:
            found += conds(inner)
    return found


def image_init(key, x):
    return {"kernel": jax.random.normal(key, (3, 3, x.shape[-1], 2))}, {}


def image_apply(params, state, x, train, key):
    kernel = params["kernel"]
    how = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", **how).mean((1, 2)), state


def test_what_is_likely_the_fastest_depends_on_the_network():
    from jaxtickets.tracing.jaxprs import operations

    x = jnp.ones((2, 4, 4, 1))
    images = jax.make_jaxpr(lambda k: image_apply(image_init(k, x)[0], {}, x, True, None))
    assert "conv_general_dilated" in operations(images(jax.random.key(0)))
    points = jax.make_jaxpr(
        lambda k, x: task().apply(task().init(k, x)[0], {"seen": 0.0}, x, True, k)
    )
    assert "conv_general_dilated" not in operations(points(jax.random.key(0), jnp.ones((2, 8))))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jt.AutoLayout(group=0), "AutoLayout: group is at least 1; got 0"),
        (lambda: jt.AutoLayout(across="pmap"), "AutoLayout: across is one of unroll, vmap, map"),  # pyright: ignore[reportArgumentType]
        (lambda: jt.AutoLayout(measure="yes"), "AutoLayout: measure is True or False"),  # pyright: ignore[reportArgumentType]
        (lambda: jt.AutoLayout(memory=-1), "AutoLayout: memory is bytes, at least 1"),
        (lambda: fit(dst(1), layout="vmap"), r"layout is a jt\.Layout, such as"),
    ],
)
def test_impossible_ones_say_so(make, message):
    with pytest.raises(PlanError, match=message):
        make()


def test_a_refused_layout_does_not_take_the_place_of_the_runs(tmp_path, monkeypatch):
    from jaxtickets.engine.checkpoints import Checkpoints

    plan, save = dst(2), Checkpoints.save

    def stops(self, *args):
        save(self, *args)
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", stops)
        with pytest.raises(InterruptedError):
            fit(plan, out=tmp_path, checkpoint_every=0)
    with pytest.raises(RunError, match="this layout 2"):
        fit(plan, out=tmp_path, layout=Layout(2, "vmap"))
    assert layout_of(tmp_path)["group"] == 1
    assert same_tickets(fit(plan, out=tmp_path), fit(plan))
