"""evaluate.py --model: networks that this package does not know."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import jaxtickets as jt
from jaxtickets.plan import Adam, Collect, Plan, Start, Train
from jaxtickets.schedules import Constant

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.usefixtures("programs_are_compiled_once", "experiments_are_importable")
NETWORKS = """
from flax import linen
import jaxtickets as jt
from beside import WIDTH

class Own(linen.Module):
    num_classes: int = 10

    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.Dense(WIDTH)(x.reshape(x.shape[0], -1)))
        return linen.Dense(self.num_classes)(x)

def make():
    return Own()

def task():
    return jt.classification(Own(), name="mine")

def fails():
    raise ValueError("no such width")

def number():
    return 7

def needs(width):
    return Own()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A file with networks, one that it imports, and tickets of both names."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "nets.py").write_text(NETWORKS)
    (folder / "beside.py").write_text("WIDTH = 16\n")
    (folder / "broken.py").write_text("import no_such_module\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        import nets
    phases = (Start(2, 0.5), Train(1, lr=Constant(0.01), optimizer=Adam()), Collect())
    for name, task in (("own", jt.classification(nets.make())), ("mine", nets.task())):
        train = jt.data.load("digits").take(slice(256))
        tickets = jt.fit(Plan("one", phases, batch_size=64), task, train, key=0)
        tickets.save(folder / f"{name}.safetensors")
    expected = jt.evaluate(tickets, jt.data.load("digits", "test"))
    return folder, expected.ensemble.accuracy


def test_networks_of_ones_own_are_evaluated(folder, tmp_path):
    place, accuracy = folder
    flags = ["--model", "nets.py:make", "nets:task", "--dataset", "digits", "--no-figures"]
    sources = ["own.safetensors", "mine.safetensors"]
    command = [sys.executable, str(ROOT / "experiments" / "evaluate.py"), *sources, *flags]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=place,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads((tmp_path / "evaluation.json").read_text())["rows"]
    assert [row["model"] for row in rows] == ["Own(num_classes=10)", "mine"] or [
        row["model"] for row in rows
    ] == ["Own(10)", "mine"]
    assert rows[1]["evaluation"]["ensemble"]["accuracy"] == pytest.approx(accuracy)


def test_changed_code_is_measured_anew(folder, tmp_path):
    import evaluate

    file = tmp_path / "nets.py"
    (tmp_path / "beside.py").write_text("WIDTH = 16\n")
    for number, text in enumerate((NETWORKS, NETWORKS.replace("relu", "tanh"))):
        file.write_text(text)
        config = evaluate.Config(
            sources=(folder[0] / "mine.safetensors",),
            suite="clean",
            dataset="digits",
            model=(f"{file}:task",),
            figures=False,
            out=tmp_path / "out",
        )
        evaluate.evaluate(config)
        assert len(list((tmp_path / "out" / "rows").iterdir())) == number + 1


WRONG = {
    "make": r"--model make: give a file or a module, a colon, and a function",
    "nets.py:": r"a colon, and a function in it",
    "nowhere.py:make": r"there is no file nowhere.py",
    "nowhere:make": r"nowhere cannot be imported: ModuleNotFoundError",
    "broken.py:make": r"broken.py cannot be imported: ModuleNotFoundError: .*no_such_module",
    "nets.py:build": r"no function build; it has Own, make, task, fails, number, needs",
    "nets.py:fails": r"ValueError: no such width The function is called without arguments",
    "nets.py:number": r"TypeError: classification: model must be .*got 7",
    "nets.py:needs": r"TypeError: needs\(\) missing 1 required positional argument",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_network(folder, monkeypatch, name):
    from support import own_networks
    from support.flags import FlagError

    monkeypatch.chdir(folder[0])
    monkeypatch.syspath_prepend(str(folder[0]))
    with pytest.raises(FlagError, match=WRONG[name]):
        own_networks.load(name)


def test_without_the_flag_it_is_told(folder):
    from support import own_networks, sources

    file = folder[0] / "mine.safetensors"
    with pytest.raises(
        jt.TicketFileError, match=r"'mine' names no network.*--model module:factory"
    ):
        sources.read(file)
    task = jt.classification(jt.models.LeNet(), name="a")
    others = [own_networks.OwnNetwork(task, ""), own_networks.OwnNetwork(task, "")]
    with pytest.raises(jt.TicketFileError, match=r"one of that name; --model makes a, a"):
        sources.read(file, others)
    with pytest.raises(jt.TicketFileError, match=r"holds tickets of mine|mine"):
        sources.read(file, others[:1])
