"""Compiled programs of a run, by what they do: phases that differ only in numbers share one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax


class Programs:
    """A cache of compiled programs that counts them and the seconds that compiling took."""

    def __init__(self) -> None:
        self._programs: dict[tuple[Any, ...], Any] = {}
        self.seconds = 0.0

    @property
    def count(self) -> int:
        """Programs compiled."""
        return len(self._programs)

    def get(
        self,
        signature: tuple[Any, ...],
        build: Callable[[], Callable[..., Any]],
        args: Any,
        donate: tuple[int, ...] = (),
        runs_once: bool = False,
    ) -> Any:
        """The program of that signature, compiled for `args` when it is first asked for.

        Args:
          signature: what tells this program from others; hashable.
          build: makes the function to compile.
          args: arguments of the shapes, dtypes and shardings to compile for.
          donate: arguments whose memory the program may reuse.
          runs_once: compile quickly rather than well: for programs whose compilation outweighs their one run.
        """
        if signature not in self._programs:
            began = time.perf_counter()
            lowered = jax.jit(build(), donate_argnums=donate).lower(*args)
            # Drawing a network's weights takes XLA's CPU backend five times longer to compile at full optimization.
            quick: Any = {"xla_backend_optimization_level": 0} if runs_once and jax.default_backend() == "cpu" else None
            self._programs[signature] = lowered.compile(compiler_options=quick)
            self.seconds += time.perf_counter() - began
        return self._programs[signature]
