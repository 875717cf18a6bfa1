"""Compiled programs of a run: phases that differ only in numbers share one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxtickets import members
from jaxtickets.engine.device_memory import DoesNotFit, bytes_needed
from jaxtickets.members import Layout

PyTree = Any


class Programs:
    """A cache of compiled programs that counts them and the seconds that compiling took.

    A program is known by what its function is made from, and by the shapes that it is called with:
    nobody writes a key beside them, and none can be forgotten.
    """

    def __init__(self) -> None:
        self._programs: dict[tuple[Any, ...], Any] = {}
        self.seconds = 0.0
        self.largest = 0
        self._limit: int | None = None

    @property
    def count(self) -> int:
        """Programs compiled."""
        return len(self._programs)

    def reset_largest(self, limit: int | None) -> None:
        """From here on `largest` is the most bytes that a program in use needs, and one that needs
        more than `limit` is refused with `DoesNotFit`.
        """
        self.largest, self._limit = 0, limit

    def over_members(
        self,
        build: Callable[..., Callable[..., PyTree]],
        static: tuple[Any, ...],
        args: Sequence[PyTree],
        mapped: Sequence[bool],
        layout: Layout,
        donate: tuple[int, ...] = (),
        runs_once: bool = False,
    ) -> Any:
        """The compiled program of a step that is written for one member, run for all of a group.

        Args:
          build: makes the step, a pure function of one member, from `static`.
          static: what the program is compiled for; hashable.
          args: arguments of the step with the shapes, dtypes and shardings to compile for.
          mapped: for every argument, whether it has a member axis; the others are shared.
          layout: how members lie.
          donate: arguments whose memory the program may reuse: after the call they are gone.
          runs_once: compile quickly rather than well: for programs whose compilation outweighs
            their one run.
        """
        leaves, tree = jax.tree.flatten(tuple(args))
        shapes = tuple((jax.numpy.shape(leaf), str(leaf.dtype)) for leaf in leaves)
        key = (build, static, tuple(mapped), layout.across, layout.mesh, tree, shapes)
        if key not in self._programs:
            step = members.over_members(build(*static), mapped, layout.across, layout.mesh)
            self._programs[key] = self._compile(step, args, donate, runs_once)
        self._weigh(self._programs[key])
        return self._programs[key]

    def _weigh(self, program: Any) -> None:
        needed = bytes_needed(program) if hasattr(program, "memory_analysis") else None
        self.largest = max(self.largest, needed or 0)
        if self._limit is not None and needed is not None and needed > self._limit:
            raise DoesNotFit(needed)

    def _compile(self, step: Any, args: Any, donate: tuple[int, ...], runs_once: bool) -> Any:
        began = time.perf_counter()
        if jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]  # somebody wants to look inside
            return step
        lowered = jax.jit(step, donate_argnums=donate).lower(*args)
        # Drawing a network's weights takes XLA's CPU backend five times longer to compile at full
        # optimization.
        fast = runs_once and jax.default_backend() == "cpu"
        quick: Any = {"xla_backend_optimization_level": 0} if fast else None
        program = lowered.compile(compiler_options=quick)
        self.seconds += time.perf_counter() - began
        return program
