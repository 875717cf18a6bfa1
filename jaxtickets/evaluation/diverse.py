"""All measures of how the members differ: a part of an evaluation."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jaxtickets.evaluation.checks import check_labels
from jaxtickets.evaluation.combining import Combine
from jaxtickets.evaluation.diversity import class_disagreement, disagreement_matrix, kl_matrix
from jaxtickets.evaluation.oracle import oracle_diversity
from jaxtickets.evaluation.pairs import pair_mean
from jaxtickets.evaluation.parameters import (
    comparable,
    itop_rates,
    mask_hamming_matrix,
    mask_iou_matrix,
    weight_cosine_matrix,
)
from jaxtickets.evaluation.predicting import Tickets, inputs_and_labels, predict
from jaxtickets.evaluation.scores import plain
from jaxtickets.masks import KERNELS
from jaxtickets.tickets import Ticket
from jaxtickets.tickets.packing import unpacked


@dataclasses.dataclass(frozen=True)
class Diverse:
    """The part "diversity" of an evaluation: all measures, pair by pair and as means.

    Disagreement, KL divergence, the five oracle measures, masks and weights.

    References:
      Liu et al. 2022, arXiv:2106.14568, sections 5.1 and appendices F and G; Kobayashi et al. 2022,
      arXiv:2205.11833, section 4.2 and 4.3.
    """

    name = "diversity"

    def __call__(
        self,
        tickets: Tickets,
        test: Any,
        *,
        bins: int = 15,
        batch_size: int | None = None,
        combine: Combine = "proba",
    ) -> dict[str, Any]:
        """Compare all pairs of members.

        Args:
          tickets: an ensemble. Masks are read from `masks`; weights and what was ever active from
            the tickets that it holds, if it can be gone through.
          test: what they predict.
          bins: not used.
          batch_size: examples predicted at a time; None leaves it to the ensemble.
          combine: not used: nothing here is of the ensemble.

        Returns:
          `{"disagreement", "kl", "mask_iou", "mask_hamming", "weight_cosine"}`, means over pairs of
          members (the last three: of networks); `"oracle"`: the five measures of `OracleDiversity`;
          `"class_disagreement"` [C]; `"disagreement_matrix"`, `"kl_matrix"` [M, M],
          `"mask_iou_matrix"` [networks, networks]; `"itop"`: for each network the share
          of weights that it ever had. None where a number is not defined: one member, nothing
            masked, nobody has written it down.

        Raises:
          EvaluationError: predictions, labels or masks that cannot be evaluated.
        """
        members = predict(tickets, test, batch_size)
        labels = check_labels(inputs_and_labels(test)[1], *members.shape[1:])
        networks = list(getattr(tickets, "members", ()))
        none, alike = np.full((1, 1), np.nan), comparable(tickets)
        masks = tickets.masks if alike else None
        overlap, hamming = (
            (none, none) if masks is None else (mask_iou_matrix(masks), mask_hamming_matrix(masks))
        )
        rules = getattr(getattr(tickets, "task", None), "prunable", KERNELS)
        cosine = none
        if networks and alike:
            # networks of other libraries have params and nothing else
            whole = [unpacked(each) if isinstance(each, Ticket) else each for each in networks]
            cosine = weight_cosine_matrix([each.params for each in whole], rules)
        disagreement, kl = disagreement_matrix(members), kl_matrix(members)
        return plain(
            {
                "disagreement": pair_mean(disagreement),
                "kl": pair_mean(kl),
                "mask_iou": pair_mean(overlap),
                "mask_hamming": pair_mean(hamming),
                "weight_cosine": pair_mean(cosine),
                "oracle": oracle_diversity(members.argmax(-1) == labels).to_dict(),
                "class_disagreement": class_disagreement(members, labels),
                "disagreement_matrix": disagreement,
                "kl_matrix": kl,
                "mask_iou_matrix": overlap,
                "itop": itop_rates(networks),
            }
        )
