"""Reading jaxprs."""

from __future__ import annotations

import itertools
from typing import Any

from jax.extend import core as jex


def subjaxprs(eqn: Any) -> list[jex.Jaxpr]:
    """Every jaxpr among the parameters of an operation."""
    values = itertools.chain.from_iterable(v if isinstance(v, tuple | list) else (v,) for v in eqn.params.values())
    return [v.jaxpr if isinstance(v, jex.ClosedJaxpr) else v for v in values if isinstance(v, jex.Jaxpr | jex.ClosedJaxpr)]


def is_call(eqn: Any, subs: list[jex.Jaxpr]) -> bool:
    """Whether an operation only calls one jaxpr on its operands: jit, remat, a custom derivative."""
    return len(subs) == 1 and (len(subs[0].invars), len(subs[0].outvars)) == (len(eqn.invars), len(eqn.outvars))
