"""Multi-Ticket: winning tickets of one pretrained network, by iterative magnitude pruning (IMP)."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

from jaxtickets.errors import PlanError
from jaxtickets.masks.structure import UNSTRUCTURED, Structure
from jaxtickets.messages import checks
from jaxtickets.methods.free_tickets import cut_out
from jaxtickets.plan import (
    Adam,
    Collect,
    Length,
    Optimizer,
    Phase,
    Plan,
    Prune,
    Remember,
    Rewind,
    Start,
    Train,
    as_length,
)
from jaxtickets.plan.penalties import L1
from jaxtickets.schedules import Linear, Schedule

check = checks.Checks(PlanError)

Scheme = Literal["baseline", "bagging", "base_lt", "active_lt", "random_lt"]
LR = Linear(2e-5)
ADAMW = Adam(clip_norm=1.0)


def imp(
    members: int = 1,
    sparsity: float = 0.3,
    rounds: int = 3,
    epochs: float | Length = 3,
    *,
    lr: Schedule = LR,
    optimizer: Optimizer = ADAMW,
    penalty: L1 | None = None,
    rewind_head: bool = True,
    head: tuple[str, ...] = ("classifier",),
    scope: Literal["layerwise", "global"] = "global",
    structure: Structure = UNSTRUCTURED,
    scores: str = "magnitude",
    batch_size: int = 32,
    collect: Literal["last", "best"] = "last",
    validation: int = 0,
) -> Plan:
    """Iterative magnitude pruning of one pretrained network: a ticket for each of `members` seeds.

    `rounds` times train, prune the smallest weights, go back to the first ones; then train the
    ticket.

    Every round prunes the same number of weights, `sparsity / rounds` of the *original* count, and
    every training runs through the whole of `lr`, so that with the default each ends at a learning
    rate of exactly 0.

    Args:
      members: seeds: each finds a ticket of its own.
      sparsity: share of the prunable weights that are gone at the end, in (0, 1).
      rounds: how many times is pruned.
      epochs: length of each training.
      lr: learning rate over each training.
      optimizer: what updates the weights; its moments start at 0 in every round.
      penalty: what is added to the loss while the mask is looked for, and not when the ticket is
        trained.
      rewind_head: the task's head goes back to what it was as well; False keeps it trained from
        round to round.
      head: path patterns of the head's leaves, for `rewind_head=False`.
      scope: one threshold for all layers ("global"), or the same share in each ("layerwise").
      structure: what the mask may look like; with `jaxtickets.masks.Units()` whole units are pruned
        (of BERT heads and feed-forward units), and cut out at once: what follows trains the smaller
        network. (Blocks stay masked; see `jaxtickets.plan.Pack`.)
      scores: what is kept, the largest "magnitude" or another score (see `jaxtickets.scores`).
      batch_size: examples per step.
      collect: the "last" iterate, or the "best" on `validation` held-out examples.
      validation: how many training examples are held out.

    Returns:
      A `Plan`; its cost is compared with one training of `epochs`.

    Raises:
      PlanError: an impossible value; says which and what would do.

    >>> print(imp(5, rounds=2))
    imp: 5 tickets, 9 epochs x 5 lineages, batch 32
      1. Start(width=5, sparsity=0)
      2. Remember(name='first')
      3. Train(3 epochs, lr=2e-05 to 0 (linear), optimizer=Adam(clip_norm=1.0))
      4. Prune(sparsity=0.15)
      5. Rewind(name='first')
      6. Train(3 epochs, lr=2e-05 to 0 (linear), optimizer=Adam(clip_norm=1.0))
      7. Prune(sparsity=0.3)
      8. Rewind(name='first')
      9. Train(3 epochs, lr=2e-05 to 0 (linear), optimizer=Adam(clip_norm=1.0))
      10. Collect()

    References:
      Frankle and Carbin, 2019, arXiv:1803.03635; Chen et al., 2020, arXiv:2007.12223 (BERT);
      Kobayashi et al., 2022, arXiv:2205.11833, section 3.1.

    Differs:
      Chen et al.'s code counts the steps of all rounds in one learning rate schedule, so that no
      round but the last ends near 0; Kobayashi et al. correct that, as here. It also keeps the
      trained head from round to round (`rewind_head=False`).
    """
    sparsity, rounds = checks.plain((sparsity, rounds))
    check.positive_int("rounds", rounds, most=checks.MOST)
    check.flag("rewind_head", rewind_head)
    _check_sparsity(sparsity)
    length = as_length(epochs, "epochs")
    back = Rewind("first", () if rewind_head else head)
    search: list[Phase] = []
    for i in range(1, rounds + 1):
        search += [
            Train(length, lr, optimizer, penalty=penalty),
            Prune(round(sparsity * i / rounds, 12), scores, scope, structure=structure),
            *cut_out(structure),
            back,
        ]
    phases = (
        Start(members),
        Remember("first"),
        *search,
        Train(length, lr, optimizer),
        Collect(collect),
    )
    return Plan("imp", phases, batch_size, reference=length, validation=validation)


def multi_ticket(
    scheme: Scheme = "random_lt",
    members: int = 5,
    sparsity: float = 0.3,
    rounds: int = 3,
    epochs: float | Length = 3,
    *,
    tau: float | Schedule = 1e-6,
    decoupled: bool = False,
    bag: float = 0.9,
    lr: Schedule = LR,
    optimizer: Optimizer = ADAMW,
    rewind_head: bool = True,
    head: tuple[str, ...] = ("classifier",),
    scope: Literal["layerwise", "global"] = "global",
    structure: Structure = UNSTRUCTURED,
    scores: str = "magnitude",
    batch_size: int = 32,
    collect: Literal["last", "best"] = "last",
    validation: int = 0,
) -> Plan:
    """One of the five schemes of the Multi-Ticket paper: dense copies of a network, or its tickets.

    "baseline" fine-tunes the dense network from `members` seeds, "bagging" each on its own random
    share of the data. "base_lt" finds tickets by `imp`. In "active_lt" and "random_lt" an L1
    penalty tau * ||theta * l||_1 makes their masks differ: l is the mean of the masks of the seeds
    before it, or a random 0/1 mask of the seed's own with P(0) = `sparsity`.

    Args:
      scheme: which.
      members: seeds.
      sparsity: share of the prunable weights that a ticket has lost, in (0, 1).
      rounds: prunings on the way there.
      epochs: length of each training.
      tau: the penalty's strength; a number falls linearly to 0 in every round, as the learning rate
        does. The paper does not publish its own.
      decoupled: a soft threshold after the optimizer's step in place of a term of the loss.
      bag: share of the training examples that a member of "bagging" sees.
      lr: learning rate over each training.
      optimizer: what updates the weights.
      rewind_head: see `imp`.
      head: see `imp`.
      scope: see `imp`.
      structure: see `imp`; units do not go with "active_lt".
      scores: see `imp`.
      batch_size: examples per step.
      collect: the "last" iterate, or the "best" on `validation` held-out examples.
      validation: how many training examples are held out.

    Returns:
      A `Plan` of that name; its cost is compared with one training of `epochs`.

    Raises:
      PlanError: an impossible value; says which and what would do.

    >>> print(multi_ticket("baseline"))
    baseline: 5 tickets, 3 epochs x 5 lineages, batch 32
      1. Start(width=5, sparsity=0)
      2. Train(3 epochs, lr=2e-05 to 0 (linear), optimizer=Adam(clip_norm=1.0))
      3. Collect()
    >>> multi_ticket("random_lt", tau=1e-5).phases[2].penalty
    L1(strength=Linear(begin=1e-05, end=0.0), on='random', share=0.7, decoupled=False)

    References:
      Kobayashi, Kiyono, Suzuki and Inui, 2022, arXiv:2205.11833, sections 3.2 and 4.

    Differs:
      The random 0/1 masks have exact counts in every layer; the paper draws each weight's by
      itself.
    """
    check.choice("scheme", scheme, get_args(Scheme))
    length = as_length(epochs, "epochs")
    if scheme in ("baseline", "bagging"):
        train = Train(length, lr, optimizer, bag=bag if scheme == "bagging" else 1.0)
        return Plan(
            scheme,
            (Start(members), train, Collect(collect)),
            batch_size,
            reference=length,
            validation=validation,
        )
    if scheme == "active_lt" and isinstance(structure, Structure) and structure.needs_units:
        raise PlanError(
            f"structure={structure!r} does not go with 'active_lt', whose penalty counts how often"
            " each weight survived in earlier tickets: networks that are cut to their units have"
            " fewer. Take 'base_lt' or 'random_lt', or a structure of weights."
        )
    _check_sparsity(sparsity)
    tau, sparsity = checks.plain((tau, sparsity))
    if not isinstance(tau, Schedule):
        check.non_negative("tau", tau)
    strength = tau if isinstance(tau, Schedule) else Linear(tau)
    penalties = {
        "base_lt": None,
        "active_lt": L1(strength, "earlier", decoupled=decoupled),
        "random_lt": L1(strength, "random", 1 - sparsity, decoupled),
    }
    plan = imp(
        members,
        sparsity,
        rounds,
        epochs,
        lr=lr,
        optimizer=optimizer,
        penalty=penalties[scheme],
        rewind_head=rewind_head,
        head=head,
        scope=scope,
        structure=structure,
        scores=scores,
        batch_size=batch_size,
        collect=collect,
        validation=validation,
    )
    return dataclasses.replace(plan, name=scheme)


def _check_sparsity(sparsity: Any) -> None:
    check.fraction(
        "sparsity", sparsity, "the share of weights that are pruned in all rounds, ", ends="()"
    )
