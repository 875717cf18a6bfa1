"""What the library prints, where standard output is not UTF-8."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import jaxtickets

PACKAGE = Path(jaxtickets.__file__).parent

SCRIPT = """
import sys
import jax, numpy as np, rich
import jaxtickets as jt

assert not sys.stdout.encoding.lower().startswith("utf"), sys.stdout.encoding
train, test = jt.data.pair("digits")
task = jt.classification(jt.models.LeNet((2, 2, 4, 4)))
x, y = np.random.default_rng(0).normal(size=(32, 16, 16, 1)).astype(np.float32), np.arange(32) % 10
plan = jt.edst(members=2, sparsity=0.5, explore=1, refine=1, batch_size=16)
ledger = jt.cost(plan, task, (x, y))
params, state = task.init(jax.random.key(0), x[:1])
ticket = jt.Ticket(params, jt.masks.dense(params), state, {})
tickets = jt.TicketEnsemble(task, (ticket, ticket), jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
result = jt.evaluation.evaluate_predictions(np.log(np.full((2, 32, 10), 0.1)), y)
budget = jt.within_budget(task, (x, y), 1.0, members=(2,), methods=("dense",))
plans = [jt.dense(), jt.bagged(), jt.dst(), jt.static_sparse(), jt.imp(), jt.multi_ticket(), jt.ltr(), jt.prune_finetune(),
         jt.prune_and_tune(), jt.snapshot(), jt.fge()]
units = jt.units.find_units(task.apply, tickets.tickets[0].params, tickets.tickets[0].model_state, tickets.x_spec)
keys = jt.member_keys(0, 2)
for one in (plan, *plans, ledger, result, budget, tickets, tickets.tickets[0], task, train, units, jt.Layout(1), keys,
            jt.Length(3), jt.models.WideResNet(10, 1), jt.models.TransformerConfig(), jt.evaluation.student_t([1.0, 2.0], [2.0, 4.0])):
    print(one)
    print(repr(one))
    print(str(one), file=sys.stderr)
rich.print(ledger, result, budget)
"""


@pytest.mark.parametrize(
    "how",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "cp1252"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_everything_prints_where_there_is_no_utf8(how):
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LC_", "LANG", "PYTHONIOENCODING", "PYTHONUTF8"))
    }
    paths = os.pathsep.join([str(PACKAGE.parent), kept.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=kept | {"PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"} | how,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode("latin-1")[-2000:]
    out = done.stdout.decode("ascii")  # not one character beyond it
    assert "of one dense training run" in out
    assert "mean of members" in out
    assert "+--" in out


def test_lines_are_drawn_where_there_is_utf8(capsys):
    from rich.table import Table

    from jaxtickets.messages.printing import printed

    table = Table("a")
    table.add_row("b")
    assert "b" in printed(table)
    assert printed(table).isascii() == (not sys.stdout.encoding.lower().startswith("utf"))


def test_texts_that_people_read_are_ascii():
    """But for reports, whose files are UTF-8: messages, names and docstrings."""
    for file in PACKAGE.rglob("*.py"):
        if "report" in file.relative_to(PACKAGE).parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value.isascii(), f"{file}:{node.lineno}: {node.value!r:.80}"
