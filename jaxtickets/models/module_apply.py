"""The base of `Task.apply` for modules of all frameworks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from jaxtickets.models.modes import call_arguments, moves, unknown_flags
from jaxtickets.task import PyTree


class ModuleApply:
    """`Task.apply` of a module; subclasses say how it runs and what training leaves off."""

    def __call__(
        self,
        params: PyTree,
        model_state: PyTree,
        x: PyTree,
        train: bool,
        key: jax.Array | None = None,
    ) -> tuple[PyTree, PyTree]:
        """Runs the module in its mode; in training its state is updated."""
        return self.run(params, model_state, x, train, key, {})

    def run(
        self,
        params: PyTree,
        model_state: PyTree,
        x: PyTree,
        train: bool,
        key: jax.Array | None,
        more: dict[str, Any],
    ) -> Any:
        """Run the module, with `more` arguments for its call."""
        raise NotImplementedError

    def kind(self) -> type:
        """The module's class."""
        raise NotImplementedError

    def layers_off(self, params: PyTree, model_state: PyTree, x: PyTree, fixed: bool) -> str:
        """The statistics or dropout that training leaves off, in words.

        Where training is one program with evaluation.
        """
        raise NotImplementedError

    def off_in_training(
        self, params: PyTree, model_state: PyTree, x: PyTree, same: bool, fixed: bool
    ) -> str:
        """What training does not switch on, in words; nothing where all is well.

        Args:
          params: shapes.
          model_state: shapes.
          x: shapes of a batch.
          same: whether training and evaluation are one program.
          fixed: whether the state is meant to stay as it is.
        """
        kind = self.kind()
        for name in unknown_flags(kind):
            switched = {name: not call_arguments(kind)[name]}
            draws, draws_switched = (
                moves(self.in_training(more), model_state, params, x) for more in ({}, switched)
            )
            if draws_switched is not None and draws is not None and draws_switched > draws:
                return (
                    f"{kind.__name__}.__call__ has an argument {name} that would switch on"
                    " statistics or random numbers"
                )
        return self.layers_off(params, model_state, x, fixed) if same else ""

    def in_training(self, more: dict[str, Any]) -> Callable[..., Any]:
        """`(state, params, x, key) -> (outputs, state)` in training, as `moves` asks for it."""
        return lambda state, params, x, key: self.run(params, state, x, True, key, more)
