"""Networks of the user's own, named as `file.py:factory` or `module:factory`."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from support.flags import FlagError

import jaxtickets as jt
from jaxtickets.files import paths


@dataclasses.dataclass(frozen=True)
class OwnNetwork:
    """A task of the user's own, and a digest of the file that it is from.

    Args:
      task: what a factory returned, or `jt.classification` made of it.
      code: hexadecimal digits.
    """

    task: jt.Task
    code: str


def load(name: str) -> OwnNetwork:
    """The network that a user's factory makes; the file's code is run.

    Args:
      name: `path/to/file.py:factory`, or `module:factory` of a module that Python finds, the
        working folder included. The factory is called without arguments.

    Raises:
      FlagError: a name of another form; no such file, module or function; code that fails; a
        factory that returns neither a `Task` nor what `jt.classification` takes.
    """
    where, _, factory = name.rpartition(":")
    if not where or not factory.isidentifier():
        raise FlagError(
            f"--model {name}: give a file or a module, a colon, and a function in it, such as"
            " my_networks.py:make."
        )
    module = _module(name, where)
    make = getattr(module, factory, None)
    if not callable(make):
        functions = [candidate for candidate in vars(module) if _made_there(module, candidate)]
        raise FlagError(
            f"--model {name}: {where} has no function {factory}; it has"
            f" {', '.join(functions) or 'none'}."
        )
    try:
        network: Any = make()
        task = network if isinstance(network, jt.Task) else jt.classification(network)
    except Exception as error:  # of the user's own code
        raise FlagError(
            f"--model {name}: {type(error).__name__}: {error} The function is called without"
            " arguments, and returns a Task, or a network for jt.classification."
        ) from error
    return OwnNetwork(task, hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest())


def _module(name: str, where: str) -> ModuleType:
    is_file = where.endswith(".py") or "/" in where
    file = paths.given(where, "--model") if is_file else None
    if file is not None and not file.is_file():
        raise FlagError(f"--model {name}: there is no file {where}.")
    folder = str(Path.cwd() if file is None else file.parent)
    if folder not in sys.path:  # what the file imports from beside it
        sys.path.insert(0, folder)
    try:
        if file is None:
            return importlib.import_module(where)
        spec = importlib.util.spec_from_file_location(f"own_{file.stem}", file)
        if spec is None or spec.loader is None:
            raise FlagError(f"--model {name}: {where} is no Python file; its name ends in .py.")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module.__name__] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
    except FlagError:
        raise
    except Exception as error:  # of the user's own code
        complaint = f"{type(error).__name__}: {error}"
        raise FlagError(f"--model {name}: {where} cannot be imported: {complaint}.") from error
    return module


def _made_there(module: ModuleType, name: str) -> bool:
    value = vars(module)[name]
    routine = inspect.isfunction(value) or inspect.isclass(value)
    return routine and value.__module__ == module.__name__ and not name.startswith("_")
