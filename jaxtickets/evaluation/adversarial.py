"""Accuracy of an ensemble on adversarial examples: a part of its evaluation."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

import jax
import numpy as np

from jaxtickets.errors import EvaluationError
from jaxtickets.evaluation.attacks import (
    CRAFTED_AT_ONCE,
    check_share,
    check_steps,
    craft,
    images_of,
)
from jaxtickets.evaluation.checks import check_labels
from jaxtickets.evaluation.combining import Combine
from jaxtickets.evaluation.combining import combine as combine_members
from jaxtickets.messages.checks import is_int, is_number
from jaxtickets.messages.quoting import shown
from jaxtickets.tickets.ensemble import TicketEnsemble

Attack = Literal["fgsm", "pgd"]


@dataclasses.dataclass(frozen=True)
class Adversarial:
    """The part "adversarial" of an evaluation: accuracy of the ensemble on adversarial examples.

    They are crafted against each member, and against the ensemble itself.

    Args:
      attack: "fgsm" or "pgd".
      step: as a share of the pixels' range; None for 8/255 of fgsm and 2/255 of pgd.
      steps: of pgd.
      radius: of pgd.
      pixels: as `fgsm` takes them.
      key: seed of pgd's random starts, another start for each member; None for none.

    Raises:
      EvaluationError: another attack; a step or radius outside (0, 1]; no steps.

    References:
      Liu et al. 2022, arXiv:2106.14568, appendix L and table 13 (FGSM of 8/255, {min, mean, max}
      over the members).

    Differs:
      Examples crafted on the ensemble's own prediction are not in the paper.
    """

    attack: Attack = "fgsm"
    step: float | None = None
    steps: int = 10
    radius: float = 8 / 255
    pixels: tuple[float, float] | None = None
    key: int | None = None

    name = "adversarial"

    def __post_init__(self) -> None:
        if self.attack not in get_args(Attack):
            raise EvaluationError(f"attack: got {self.attack!r}, wanted 'fgsm' or 'pgd'.")
        if self.attack == "fgsm" and self.key is not None:
            raise EvaluationError(
                "key: fgsm starts at the images themselves; leave key out, or write attack='pgd'."
            )
        if self.key is not None and (not is_int(self.key) or not 0 <= self.key < 2**32):
            raise EvaluationError(
                f"key: got {shown(self.key)}, wanted an integer in [0, 2^32), or None."
            )
        if self.pixels is not None:
            pair = (
                self.pixels
                if isinstance(self.pixels, tuple | list) and len(self.pixels) == 2
                else (1.0, 0.0)
            )
            if not all(map(is_number, pair)) or not pair[0] < pair[1]:
                raise EvaluationError(
                    f"pixels: got {shown(self.pixels)}, wanted the lowest and the highest value,"
                    " such as (0, 1), or None."
                )
        check_share("step", self.length)
        check_share("radius", self.radius)
        check_steps(self.steps)

    @property
    def length(self) -> float:
        """The length of a step: `step`, or the attack's usual one if that is None."""
        return {"fgsm": 8 / 255, "pgd": 2 / 255}[self.attack] if self.step is None else self.step

    def __call__(
        self,
        tickets: TicketEnsemble,
        test: Any,
        *,
        bins: int = 15,
        batch_size: int | None = None,
        combine: Combine = "proba",
    ) -> dict[str, Any]:
        """Attack every member and the ensemble.

        Args:
          tickets: the ensemble.
          test: as `fgsm` takes it.
          bins: not used.
          batch_size: examples at a time; None for 100 per gradient and the ensemble's own number
            per prediction.
          combine: how members' predictions become the ensemble's: "proba", "logits" or "vote". The
            attack on the ensemble is one on the mean of the probabilities, however they are
            combined.

        Returns:
          `{"attack", "step", "examples", "crafted_on_members": [M accuracies], "min", "mean",
          "max", "crafted_on_ensemble", "clean"}`, of pgd also "steps" and "radius". With one member
          the attack on it is the one on the ensemble.

        Raises:
          EvaluationError: as `fgsm`.
        """
        images = images_of(tickets, test, self.pixels)
        labels = check_labels(images.data.y, len(images.data), tickets.task.num_classes or 0)
        members = len(tickets) * tickets.heads

        def accuracy(x: np.ndarray) -> float:
            options = {} if batch_size is None else {"batch_size": batch_size}
            log_proba = tickets.member_log_proba(dataclasses.replace(images.data, x=x), **options)
            return float(np.mean(combine_members(log_proba, combine).argmax(-1) == labels))

        def attacked(on: int | None) -> float:
            key = (
                None
                if self.key is None
                else jax.random.fold_in(jax.random.key(self.key), members if on is None else on)
            )
            steps, radius = (1, self.length) if self.attack == "fgsm" else (self.steps, self.radius)
            return accuracy(
                craft(
                    tickets,
                    images,
                    on,
                    self.length,
                    steps,
                    radius,
                    key,
                    batch_size or CRAFTED_AT_ONCE,
                )
            )

        accuracies = [attacked(on) for on in range(members)]
        result = {
            "attack": self.attack,
            "step": float(self.length),
            "examples": len(labels),
            "crafted_on_members": accuracies,
            "min": min(accuracies),
            "mean": float(np.mean(accuracies)),
            "max": max(accuracies),
            "crafted_on_ensemble": accuracies[0] if members == 1 else attacked(None),
            "clean": accuracy(images.x),
        }
        return result | (
            {"steps": self.steps, "radius": self.radius} if self.attack == "pgd" else {}
        )
