"""Digests of what is computed: of traced programs, and of functions that are no programs. Equal in
every process.

Of a program everything counts that its results depend on: operations, their order and parameters,
the bytes of constants, what is called inside. Names of functions, places in files and addresses do
not, nor does what is computed in vain.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import re
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray, Tracer
from jax.extend import core as jex

# What of an operation says nothing about its results.
_COSMETIC = frozenset(
    (
        *(
            "name",
            "debug_info",
            "ctx_mesh",
            "donated_invars",
            "keep_unused",
            "inline",
            "in_shardings",
        ),
        *("out_shardings", "in_layouts", "out_layouts", "resource_env", "compiler_options_kvs"),
        *("api_name", "out_trees", "symbolic_zeros", "num_consts"),
    )
)
_KEEPS_ITS_CONSTANTS_NUMBER = frozenset(("scan", "while"))
_FOREIGN = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "numpy",
    "chex",
    "builtins",
    "functools",
    "jaxtickets",
)


def digest_of(*values: Any) -> str:
    """A digest of programs (`jax.make_jaxpr`), functions, arrays and trees of such."""
    writer = _Writer()
    for value in values:
        writer.add(value)
    return writer.hash.hexdigest()


def same_program(a: Any, b: Any) -> bool:
    """Whether two programs compute the same from the same arguments, as far as their operations
    show it.
    """
    return len(_live(a.jaxpr)) == len(_live(b.jaxpr)) and digest_of(a) == digest_of(b)


class _Writer:
    """Writes values into one hash, each with its kind and length, so that no two lists of values
    write the same bytes.
    """

    def __init__(self, seen: dict[int, Any] | None = None) -> None:
        self.hash = hashlib.blake2b(digest_size=12)
        # by address: what is being written, or its digest; objects are kept alive
        self.seen = {} if seen is None else seen

    def text(self, *words: Any) -> None:
        for word in words:
            data = str(word).encode()
            self.hash.update(f"{len(data)}:".encode() + data)

    def add(self, value: Any) -> None:
        """Any value."""
        if value is None or isinstance(
            value, bool | int | float | complex | str | types.EllipsisType | slice
        ):
            self.text(type(value).__name__, repr(value))
        elif isinstance(value, bytes):
            self.text("bytes", hashlib.blake2b(value).hexdigest())
        elif isinstance(value, enum.Enum):
            self.text("enum", type(value).__name__, value.name)
        elif isinstance(value, np.dtype):
            self.text("dtype", value.name)
        elif isinstance(value, type):
            self.text("class", value.__module__, value.__qualname__)
        elif isinstance(value, types.ModuleType):
            self.text("module", value.__name__)
        elif isinstance(value, tuple | list):
            self.text(type(value).__name__, len(value))
            for item in value:
                self.add(item)
        elif isinstance(value, dict):
            self.unordered("dict", value.items())
        elif isinstance(value, set | frozenset):
            self.unordered("set", value)
        elif hasattr(value, "dtype") and hasattr(value, "shape"):
            self.array(value)
        else:
            self.once(value)

    def unordered(self, kind: str, items: Any) -> None:
        self.text(kind, *sorted(self.apart(item) for item in items))

    def apart(self, value: Any) -> str:
        """The digest of a value alone."""
        writer = _Writer(self.seen)
        writer.add(value)
        return writer.hash.hexdigest()

    def array(self, value: Any) -> None:
        if jnp.issubdtype(value.dtype, jax.dtypes.extended):
            self.text("key", str(value.dtype), value.shape)
            if isinstance(value, jax.Array) and not isinstance(value, Tracer):
                self.array(jax.random.key_data(value))
            return
        self.text("array", value.dtype, tuple(value.shape), getattr(value, "weak_type", False))
        if isinstance(value, Tracer | ShapedArray | jax.ShapeDtypeStruct):
            return
        host = np.ascontiguousarray(value)
        if host.dtype.hasobject:
            self.text(*(self.apart(item) for item in host.reshape(-1).tolist()))
        else:
            self.hash.update(host.reshape(-1).view(np.uint8).data)

    def once(self, value: Any) -> None:
        """A value that may hold itself, or be met again and again."""
        found = self.seen.get(id(value))
        if found is None:
            self.seen[id(value)] = (value, "itself")
            writer = _Writer(self.seen)
            writer.inside(value)
            found = self.seen[id(value)] = (value, writer.hash.hexdigest())
        self.text(found[1])

    def inside(self, value: Any) -> None:
        if isinstance(value, jex.ClosedJaxpr):
            self.jaxpr(value.jaxpr, value.consts)
        elif isinstance(value, jex.Jaxpr):
            self.jaxpr(value, getattr(value, "consts", None) or ())
        elif isinstance(value, types.CodeType):
            self.text("code", value.co_code.hex(), value.co_argcount, value.co_kwonlyargcount)
            self.add((value.co_consts, value.co_names, value.co_freevars))
        elif isinstance(value, types.FunctionType):
            self.function(value)
        elif isinstance(value, types.MethodType):
            self.add((value.__func__, value.__self__))
        elif isinstance(value, functools.partial):
            self.text("partial")
            self.add((value.func, value.args, value.keywords))
        elif isinstance(value, types.BuiltinFunctionType | types.MethodWrapperType):
            self.text("builtin", value.__qualname__)
        elif isinstance(
            getattr(value, "__wrapped__", None), types.FunctionType
        ):  # jit, lru_cache, custom derivatives
            self.text("wrapped")
            self.add(value.__wrapped__)
        else:
            self.thing(value)

    def function(self, value: types.FunctionType) -> None:
        """A function of a package by its name; another by its code, and what that refers to:
        constants, defaults, closure, globals.
        """
        cells = [_content(cell) for cell in value.__closure__ or ()]
        if _is_foreign(value.__module__):
            self.text("function", value.__module__, value.__qualname__)
            self.add(cells)
            return
        self.text("own function")
        self.add(value.__code__)
        self.add((value.__defaults__, value.__kwdefaults__, cells))
        for name in _names(value.__code__):
            if name in value.__globals__:
                self.text(name)
                self.add(value.__globals__[name])

    def thing(self, value: Any) -> None:
        """An object by its class and fields; a package's by what it writes about itself where it
        has none.
        """
        kind = type(value)
        self.text("object", kind.__module__, kind.__qualname__)
        if not _is_foreign(kind.__module__):
            for name, method in sorted(vars(kind).items()):
                if isinstance(method, types.FunctionType) and (
                    name == "__call__" or not name.startswith("__")
                ):
                    self.text(name)
                    self.add(method)
        if dataclasses.is_dataclass(value):
            self.add(
                [
                    (f.name, getattr(value, f.name))
                    for f in dataclasses.fields(value)
                    if f.name not in ("parent", "name")
                ]
            )
        elif getattr(value, "__dict__", None) and not _is_foreign(kind.__module__):
            self.add(vars(value))
        else:
            self.text(re.sub(r" at 0x[0-9a-fA-F]+", "", str(value)))

    # Programs

    def jaxpr(self, jaxpr: Any, consts: Any) -> None:
        live = _live(jaxpr)
        number: dict[Any, int] = {}

        def bind(variables: Any) -> None:
            for v in variables:
                number[v] = len(number)
                self.aval(v.aval)

        def read(atom: Any) -> None:
            if isinstance(atom, jex.Literal):
                self.text("literal")
                self.aval(atom.aval)
                self.add(atom.val)
            else:
                self.text("variable", number[atom])

        self.text("program", len(jaxpr.invars))
        bind(jaxpr.invars)
        used = {id(v) for eqn in live for v in eqn.invars} | {id(v) for v in jaxpr.outvars}
        pairs = [
            (v, c)
            for v, c in zip(jaxpr.constvars, [*consts, *[None] * len(jaxpr.constvars)])
            if id(v) in used
        ]
        bind([v for v, _ in pairs])
        for _, constant in pairs:
            self.add(constant)
        for eqn in live:
            self.text("operation", eqn.primitive.name)
            for atom in eqn.invars:
                read(atom)
            self.parameters(eqn)
            bind(eqn.outvars)
        self.text("results")
        for atom in jaxpr.outvars:
            read(atom)

    def aval(self, aval: Any) -> None:
        self.text(
            getattr(aval, "dtype", type(aval).__name__),
            getattr(aval, "shape", ()),
            getattr(aval, "weak_type", False),
        )

    def parameters(self, eqn: Any) -> None:
        for name, value in sorted(eqn.params.items()):
            if name in _COSMETIC and not (
                name == "num_consts" and eqn.primitive.name in _KEEPS_ITS_CONSTANTS_NUMBER
            ):
                continue
            self.text(name)
            if hasattr(value, "call_wrapped") or (callable(value) and not isinstance(value, type)):
                # Of a derivative or a call of the host JAX keeps wrappers; what they wrap is the
                # user's.
                for function in own_functions(value):
                    self.add(function)
            else:
                self.add(value)


def own_functions(wrapper: Any) -> list[types.FunctionType]:
    """The functions within JAX's wrappers that are of no other package, in the order in which they
    are met.
    """
    found: list[types.FunctionType] = []
    seen: set[int] = set()

    def look(value: Any) -> None:
        if id(value) in seen or len(seen) > 10_000:
            return
        seen.add(id(value))
        if isinstance(value, types.FunctionType):
            if not _is_foreign(value.__module__) or value.__module__.startswith("jaxtickets."):
                found.append(value)
                return
            for cell in value.__closure__ or ():
                look(_content(cell))
        elif isinstance(value, functools.partial):
            look(value.func)
            look(value.args)
        elif isinstance(value, types.MethodType):
            look(value.__func__)
            look(value.__self__)
        elif isinstance(value, tuple | list):
            for item in value:
                look(item)
        else:
            for name in (
                "f",
                "transforms",
                "fun",
                "jvp",
                "fwd",
                "bwd",
                "callback_func",
                "__wrapped__",
            ):
                look(getattr(value, name, None))

    look(wrapper)
    return found


def _live(jaxpr: Any) -> list[Any]:
    """The operations whose results are used, or that do something else than print."""
    wanted = {id(v) for v in jaxpr.outvars if not isinstance(v, jex.Literal)}
    kept = []
    for eqn in reversed(jaxpr.eqns):
        acts = bool(eqn.effects) and not eqn.primitive.name.startswith("debug_")
        if acts or any(id(v) in wanted for v in eqn.outvars):
            kept.append(eqn)
            wanted |= {id(v) for v in eqn.invars if not isinstance(v, jex.Literal)}
    return kept[::-1]


def _is_foreign(module: str | None) -> bool:
    return (module or "builtins").split(".")[0] in _FOREIGN


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet filled
        return None


def _names(code: types.CodeType) -> list[str]:
    """Global names that a function and those inside it may refer to."""
    inner = [
        name
        for constant in code.co_consts
        if isinstance(constant, types.CodeType)
        for name in _names(constant)
    ]
    return list(dict.fromkeys([*code.co_names, *inner]))
