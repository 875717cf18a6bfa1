"""Everything that a flag of a command can get wrong: one line on standard error, exit status 2, nothing read, written or trained."""

import dataclasses
import importlib
import runpy
import sys
import typing
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
pytestmark = pytest.mark.usefixtures("experiments_are_importable")

SCRIPTS = (
    "edst_cifar",
    "dst_cifar",
    "prune_and_tune_cifar",
    "baselines_cifar",
    "compare_cifar",
    "ablations_cifar",
    "multi_ticket_glue",
    "imagenet",
    "evaluate",
    "export",
    "report",
    "benchmark",
    "tables",
)
# Numbers that may be 0; none may be below.
ZERO = {
    "momentum",
    "weight_decay",
    "dropout",
    "validation",
    "probe",
    "lr",
    "explore",
    "warmup",
    "escape",
    "drop_fraction",
    "end",
}
ZERO |= {
    "checkpoint_every",
    "seed",
    "seeds",
    "tune_peak",
    "refine_lr",
    "label_smoothing",
    "tau",
    "resamples",
    "noise",
    "sparsity",
}
ZERO |= {"tune_epochs", "parent_epochs", "channels", "side_by_side", "input_repetition"}
# Flags without which another is not looked at.
WITH = {
    "sparsity": {
        "prune_and_tune_cifar": ["--masks", "random"],
        "baselines_cifar": ["--method", "static_sparse"],
    },
    "bag": {"baselines_cifar": ["--method", "bagged"]},
    "finetune": {"baselines_cifar": ["--method", "prune_finetune"]},
    "update_every": {"baselines_cifar": ["--method", "ltr"]},
    "members": {"baselines_cifar": ["--method", "mc_dropout"]},
    "cycle": {"baselines_cifar": ["--method", "snapshot"]},
    "repetition": {"baselines_cifar": ["--method", "mimo"]},
    "epochs": {"imagenet": ["--method", "dst"]},
}


def own_flags(script):
    """The flags that a script adds; of the first script that has them, also those of its bases."""
    config = importlib.import_module(script).Config
    hints = typing.get_type_hints(config, include_extras=True)
    elsewhere = {"edst_cifar": 99, "compare_cifar": 2}.get(
        script, 1
    )  # classes from there on are another script's to test
    inherited = {
        name
        for base in config.__mro__[elsewhere:]
        for name in vars(base).get("__annotations__", {})
    }
    own = vars(config).get("__annotations__", {})
    return {
        field.name: hints[field.name]
        for field in dataclasses.fields(config)
        if field.name in own or field.name not in inherited
    }


def kinds(hint):
    """int, float, str, Path or the choices behind a type."""
    if typing.get_origin(hint) is typing.Literal:
        return {"choice"}
    if args := typing.get_args(hint):
        first = args[:1] if typing.get_origin(hint) is typing.Annotated else args
        return set().union(*(kinds(arg) for arg in first))
    return {hint}


def wrong_values(name, hint):
    found = kinds(hint) - {type(None), ...}
    values = []
    if bool in found:
        return ["maybe"]
    if found & {int, float}:
        values += ["nan", "inf", "-1", str(10**30)] + ([] if name in ZERO else ["0"])
    if "choice" in found:
        values += ["unknown"]
    if Path in found:
        values += [""]
        values += (
            ["/nowhere/at/all"]
            if name in ("data_dir", "parent", "imagenet_a", "sources", "runs")
            else []
        )
        values += (
            ["FILE/below/it", "n" * 300, "/proc/nowhere"]
            if name in ("out", "markdown", "latex")
            else []
        )
    if str in found:
        values += [""]
    return values


# What no flag of a number takes, whichever it is.
NO_NUMBERS = ("x", "", "-inf", "1e400", "1.5.", "0x", "٣٫", "9" * 5000)


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """A script as its user starts it, in this process: its exit status and what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JAXTICKETS_DATA", raising=False)

    def call(script, *flags):
        monkeypatch.setattr(sys, "argv", [str(EXPERIMENTS / f"{script}.py"), *flags])
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as ended:
            return ended.code or 0, capsys.readouterr()
        return 0, capsys.readouterr()

    return call


def shown(name, hint):
    return [] if "Positional" in repr(hint) else [f"--{name.replace('_', '-')}"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_wrong_value_of_every_flag(script, call, tmp_path):
    (tmp_path / "FILE").write_text("a file")
    (tmp_path / "results.json").write_text("{}")
    before = set(tmp_path.rglob("*"))
    flags = own_flags(script)
    strange = []
    for name, hint in flags.items():
        # Where a wrong value were taken, the cost would be printed and the test fail, with nothing trained.
        quick = ["--cost"] if "cost" in all_flags(script) and name not in ("out", "cost") else []
        quick += (
            ["."] if script in ("report", "evaluate") and name not in ("sources", "runs") else []
        )
        for value in wrong_values(name, hint):
            given = [*WITH.get(name, {}).get(script, []), *shown(name, hint), value, *quick]
            status, said = call(script, *given)
            one_line = (
                len(said.err.splitlines()) == 1 and "Error: " in said.err and len(said.err) < 2500
            )
            if status != 2 or not one_line or said.out or set(tmp_path.rglob("*")) != before:
                strange.append((given, status, said.err[-300:], said.out[:100]))
    assert len(flags) > 0
    assert strange == []


def all_flags(script):
    return {field.name for field in dataclasses.fields(importlib.import_module(script).Config)}


@pytest.mark.parametrize(
    ("script", "flags", "line"),
    [
        ("edst_cifar", ["--bins", "0"], "FlagError: --bins is at least 1 and at most 10,000; got 0."),
        ("edst_cifar", ["--seed", "-1"], "FlagError: --seed is at least 0 and at most 4,294,967,295; got -1."),
        ("dst_cifar", ["--lr", "nan"], "FlagError: --lr is a finite number, at least 0; got nan."),
        ("dst_cifar", ["--checkpoint-every", "nan"], "FlagError: --checkpoint-every is a finite number, at least 0 and at most 604,800; got nan."),
        ("edst_cifar", ["--members", "1000000000", "--cost"], "FlagError: --members is at most 10,000; got 1000000000."),
        ("edst_cifar", ["--update-every", "nan"], "FlagError: --update-every: invalid literal for int() with base 10: 'nan'. See --help."),
        ("edst_cifar", ["--model", "foo"], "FlagError: invalid choice 'foo' for argument '--model'. Expected one of ('wide_resnet', 'lenet', 'resnet', 'densenet'). See --help."),
        ("edst_cifar", ["--out="], "FlagError: --out is empty; give it a value, or leave it out."),
        ("edst_cifar", ["--members"], "FlagError: Missing value for argument '--members'. Expected 1 values. See --help."),
        ("edst_cifar", ["--preset"], "FlagError: Missing value for argument '--preset'. Expected 1 values. See --help."),
        ("baselines_cifar", ["--method"], "FlagError: Missing value for argument '--method'. Expected 1 values. See --help."),
        ("compare_cifar", ["--seeds", "1", "1"], "FlagError: --seeds: one or more, no two of them equal; got 1 1."),
        ("compare_cifar", ["--seeds"], "FlagError: --seeds: one or more, no two of them equal; got none."),
        ("evaluate", ["x", "--severities", "6"], "FlagError: --severities is at least 1 and at most 5; got 6."),
        ("evaluate", ["x", "--suite", "clean,robust"], "ReportError: --suite: got 'robust'; parts are clean, corrupted, shifted, ood, adversarial, diversity, features, landscape, with commas between them, or all."),
        ("evaluate", ["x", "--ood", "mnist"], "ReportError: --ood: got 'mnist'; sets are svhn, noise, cifar10, cifar100."),
        ("evaluate", ["nowhere"], "ReportError: nowhere: there is no such file or folder."),
        ("benchmark", ["--rounds", "0"], "FlagError: --rounds is at least 1 and at most 1,000; got 0."),
        ("prune_and_tune_cifar", ["--parent", "no.safetensors"], "FlagError: --parent no.safetensors: there is no ticket file of that name."),
    ],
)  # fmt: skip
def test_what_the_line_says(script, flags, line, call):
    status, said = call(script, *flags)
    assert (status, said.err.rstrip("\n").replace(f"{Path.cwd()}/", "")) == (
        2,
        line,
    )  # paths are told whole


def test_what_no_number_is(call):
    for flag in ("--seed", "--lr", "--members", "--checkpoint-every"):
        for value in NO_NUMBERS:
            status, said = call("edst_cifar", flag, value, "--cost")
            assert status == 2, (flag, value)
            assert len(said.err.splitlines()) == 1, (flag, value)
            assert flag in said.err, value


@pytest.mark.parametrize(
    "method",
    [
        "static_sparse",
        "ltr",
        "snapshot",
        "fge",
        "mc_dropout",
        "treenet",
        "batch_ensemble",
        "mimo",
        "bagged",
    ],
)
def test_as_many_members_as_nobody_has_are_refused_at_once(method, call):
    status, said = call("baselines_cifar", "--method", method, "--members", str(10**9), "--cost")
    assert (status, said.err) == (2, "FlagError: --members is at most 10,000; got 1000000000.\n")


def test_what_a_later_method_could_not_do_is_said_before_the_first_is_trained(call, tmp_path):
    # A bag of nine tenths of 1347 examples does not fill that batch; eleven other methods could train with it.
    status, said = call("compare_cifar", "--batch-size", "1300")
    assert status == 2
    assert (
        said.err
        == "DataError: a bag of 0.9 of 1347 examples does not fill a batch of 1300; take a larger bag.\n"
    )
    # One of five schemes trains its lineages one after another.
    status, said = call("multi_ticket_glue", "--layout", "vmap")
    assert status == 2
    assert said.err.startswith("PlanError: layout: active_lt trains its lineages one after another")
    status, said = call("multi_ticket_glue", "--batch-size", "5000")
    assert status == 2
    assert said.err.startswith("DataError: batch_size=5000 is more than")
    assert list(tmp_path.iterdir()) == []


def test_layouts_of_the_flags():
    from support.flags import FlagError, Hardware

    import jaxtickets as jt

    for flags, layout in (
        ({}, None),
        ({"layout": "one_by_one"}, jt.Layout(1, "unroll")),
        ({"layout": "one_by_one", "members_together": 1}, jt.Layout(1, "unroll")),
        ({"layout": "map"}, jt.Layout(4, "map")),
        ({"layout": "map", "members_together": 2}, jt.Layout(2, "map")),
        ({"layout": "vmap", "members_together": 9}, jt.Layout(4, "vmap")),
        ({"members_together": 2}, jt.AutoLayout(group=2)),
        ({"layout": "measured"}, jt.AutoLayout(measure=True)),
    ):
        assert Hardware(**flags).fit_kwargs(4)["layout"] == layout
    with pytest.raises(FlagError, match="--members-together 3 and --layout one_by_one exclude"):
        Hardware(layout="one_by_one", members_together=3).fit_kwargs(4)


def test_every_number_of_every_command_has_a_rule_or_a_reason():
    """A new flag is a finite number by itself; a count, a rate or a share says so."""
    from support import command, flags

    @dataclasses.dataclass(frozen=True)
    class New:
        number: float = 0.5
        count: int = 3

    flags.check(New())
    for value in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(flags.FlagError, match=r"--number is a finite number; got -?(nan|inf)"):
            flags.check(New(number=value))
    with pytest.raises(flags.FlagError, match="--count is a finite number"):
        flags.check(New(count=2**63))
    assert issubclass(flags.FlagError, ValueError)
    assert flags.FlagError in command.USER_ERRORS


def test_where_files_cannot_be_written_is_said_and_nothing_is_left(tmp_path):
    from support import command, flags

    there = tmp_path / "a" / "b" / "c"
    assert command.writable(there) == there
    assert list(tmp_path.iterdir()) == []  # looked at, and left as it was
    (tmp_path / "file").write_text("")
    for bad in (
        tmp_path / "file",
        tmp_path / "file" / "below",
        tmp_path / ("n" * 300),
        Path("/proc/nowhere"),
    ):
        with pytest.raises(
            flags.FlagError, match=r"--out .*: .*\. Give a folder that can be written to\."
        ):
            command.writable(bad)
    command.writable_file(tmp_path / "new.md", "--markdown")
    for bad in (tmp_path, tmp_path / "none" / "r.md"):
        with pytest.raises(flags.FlagError, match="--markdown"):
            command.writable_file(bad, "--markdown")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
