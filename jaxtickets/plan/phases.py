"""The phases of a plan but for the training: frozen dataclasses that check themselves."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any, Literal, get_args

from jaxtickets.errors import MaskError, PlanError
from jaxtickets.masks import scores
from jaxtickets.masks.children import check_children, check_patterns, kept_dense
from jaxtickets.masks.sparsity import check_sparsity, layer_budgets
from jaxtickets.masks.structure import UNSTRUCTURED, Structure, structured
from jaxtickets.masks.whole_units import UNIT_GROWTHS, Units
from jaxtickets.messages import checks
from jaxtickets.messages.pytrees import leaf_paths
from jaxtickets.plan.phase import Before, NetworkShapes, Phase

check = checks.Checks(PlanError)

Scope = Literal["layerwise", "global"]
GROWS = "what grows may come anywhere in a layer"
UNITS = "whole units run through whole layers"
NO_MASK = "there is no mask to evolve; give Start a sparsity above 0."


@dataclasses.dataclass(frozen=True)
class Start(Phase):
    """Fresh weights and fresh masks: `width` lineages, each from its own key.

    Args:
      width: how many lineages start.
      sparsity: share of zeros of the random first mask; 0 starts dense.
      distribution: "erk", "er" or "uniform".
      keep_dense: path patterns of layers to leave dense.
      scores: what is kept: a "random" choice, or the largest of a score, such as "snip" (see
        `jaxtickets.scores`): over the whole network, whatever the distribution.
      structure: what the mask may look like (see `jaxtickets.masks.Structure`).
    """

    width: int = 1
    sparsity: float = 0.0
    distribution: Literal["uniform", "er", "erk"] = "erk"
    keep_dense: tuple[str, ...] = ()
    scores: str = "random"
    structure: Structure = UNSTRUCTURED

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        check_score("Start's scores", self.scores)
        check.positive_int("members (the width of Start)", self.width, most=checks.MOST)
        object.__setattr__(self, "keep_dense", check.patterns("keep_dense", self.keep_dense))
        check_structure("Start's structure", self.structure, keep_dense=self.keep_dense)
        check.choice("distribution", self.distribution, ("uniform", "er", "erk"))
        try:
            check_sparsity(self.sparsity)
        except MaskError as error:
            raise PlanError(str(error)) from None

    @property
    def may_prune(self) -> bool:
        """Whether its mask has zeros."""
        return self.sparsity > 0

    @property
    def prunes_units(self) -> bool:
        """Whether these are of whole units."""
        return self.may_prune and self.structure.needs_units

    def sparsity_after(self, sparsity: float) -> float:
        """Its own."""
        return self.sparsity

    def check_after(self, before: Before) -> None:
        """It is the first."""
        if before.previous is not None:
            raise PlanError("a plan starts once; remove it.")

    def check_network(self, network: NetworkShapes) -> None:
        """The layers can meet the sparsity."""
        if self.sparsity and self.scores == "random":
            layer_budgets(network.prunable, self.sparsity, self.distribution, self.keep_dense)
        elif self.sparsity:
            check_children(network.prunable, 1, "random", "global", self.keep_dense)

    def described(self) -> str:
        """In one line."""
        rest = f", {self.distribution}" if self.sparsity else ""
        rest += f", keep_dense={self.keep_dense!r}" if self.keep_dense else ""
        rest += f", scores={self.scores!r}" if self.scores != "random" else ""
        rest += f", structure={self.structure}" if self.structure != UNSTRUCTURED else ""
        return f"Start(width={self.width}, sparsity={self.sparsity:g}{rest})"


@dataclasses.dataclass(frozen=True)
class Escape(Phase):
    """EDST's global exploration: one prune-grow with a large drop fraction q leaves the basin.

    With the structure `jaxtickets.masks.Units()` whole units go and come (see `Evolve`).
    """

    drop_fraction: float = 0.8
    growth: str = "gradient"
    regrown: Literal["keep", "zero"] = "keep"
    structure: Structure = UNSTRUCTURED

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        check_score("growth", self.growth)
        check.choice("regrown", self.regrown, ("keep", "zero"))
        check.fraction("Escape's drop_fraction q", self.drop_fraction)
        check_growth("Escape", self.structure, self.growth, self.drop_fraction)

    def check_after(self, before: Before) -> None:
        """There is a mask of whole layers, and something that could grow."""
        check_evolves(self.structure, before)


@dataclasses.dataclass(frozen=True)
class Collect(Phase):
    """Take every lineage's present network as a ticket.

    Args:
      which: "last" (the last iterate) or "best" (of the training phase before, by accuracy on the
        validation split at the end of each epoch; needs `Plan.validation`).
    """

    which: Literal["last", "best"] = "last"

    def __post_init__(self) -> None:
        check.choice("which", self.which, ("last", "best"))

    @property
    def tickets(self) -> int:
        """One."""
        return 1

    @property
    def wants_best(self) -> bool:
        """Whether it takes the best network of the training before it."""
        return self.which == "best"

    def check_after(self, before: Before) -> None:
        """The best is one of a training, by accuracy on a validation split."""
        if not self.wants_best:
            return
        if not before.validation:
            raise PlanError(
                "the best needs a validation split; set validation=5000, or collect the last."
            )
        if before.previous is None or before.previous.trains_with is None:
            raise PlanError("the best of nothing; put a Train right before it.")


@dataclasses.dataclass(frozen=True)
class Prune(Phase):
    """Prune once, to a sparsity of the *original* count, among the weights that survive; pruned
    ones stay pruned.

    Args:
      sparsity: share of zeros afterwards, in (0, 1): N - floor(sparsity * N) survive.
      scores: what is kept: the largest "magnitude", a "random" choice from the lineage's key, or
        the largest of another score, such as "snip", "grasp", "synflow" or one of your own (see
        `jaxtickets.scores`). Those that look at data see the batch that would come next.
      scope: "global" (one threshold over all prunable weights, no normalisation) or "layerwise".
      keep_dense: path patterns of layers that lose nothing and do not count.
      rounds: in how many steps, the score being computed anew before each; None for the score's own
        (100 of SynFlow's, 1 of others).
      structure: what the mask may look like (see `jaxtickets.masks.Structure`).
    """

    sparsity: float
    scores: str = "magnitude"
    scope: Scope = "global"
    keep_dense: tuple[str, ...] = ()
    rounds: int | None = None
    structure: Structure = UNSTRUCTURED

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        check.fraction("Prune's sparsity", self.sparsity, "the share of zeros, ", ends="()")
        check_score("scores", self.scores)
        if self.rounds is not None:
            check.positive_int("rounds", self.rounds, most=checks.MOST)
        check.choice("scope", self.scope, get_args(Scope))
        object.__setattr__(self, "keep_dense", check.patterns("keep_dense", self.keep_dense))
        check_structure("Prune's structure", self.structure, keep_dense=self.keep_dense)

    @property
    def may_prune(self) -> bool:
        """Yes."""
        return True

    @property
    def prunes_units(self) -> bool:
        """Whether it prunes whole units."""
        return self.structure.needs_units

    def sparsity_after(self, sparsity: float) -> float:
        """Its own."""
        return self.sparsity

    def check_after(self, before: Before) -> None:
        """It prunes more."""
        check_prunes_more(self.sparsity, before)
        if self.structure.needs_units:
            before.check_whole(UNITS)

    def check_network(self, network: NetworkShapes) -> None:
        """The layers can meet the sparsity."""
        check_children(network.prunable, 1, "random", self.scope, self.keep_dense)


@dataclasses.dataclass(frozen=True)
class Shrink(Phase):
    """Cut out what is dead: from here on every network is the smaller dense one that computes the
    same.

    A unit (an output channel, a neuron) is dead where every weight that reads it is pruned. Params,
    batch statistics, moments, the mask and what is remembered lose it, and what follows trains,
    prunes, evolves, forks and collects in the smaller network. Sparsities stay shares of the
    original count. Where nothing is dead it changes nothing, and says so.

    Networks that train together come out in one shape: every layer is as wide as the widest of them
    needs it, and the others keep a few dead units. Another layout may leave other dead units.

    Args:
      multiple: widths are rounded up to a multiple of it, by units that are dead: odd widths cost
        on most hardware what they save. 1 for no such units.
    """

    multiple: int = 8

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        check.positive_int("Shrink's multiple", self.multiple, most=checks.MOST)

    @property
    def shrinks(self) -> bool:
        """Yes."""
        return True

    def check_after(self, before: Before) -> None:
        """Layers are whole."""
        before.check_whole(UNITS)


@dataclasses.dataclass(frozen=True)
class Remember(Phase):
    """Keep a copy of the present weights and batch statistics, for a `Rewind` to it."""

    name: str

    def __post_init__(self) -> None:
        check.text("Remember's name", self.name)

    @property
    def remembers(self) -> str:
        """The name under which the weights are kept."""
        return self.name

    def check_after(self, before: Before) -> None:
        """The name is free."""
        if self.name in before.remembered:
            raise PlanError(f"{self.name!r} is remembered already; take another name.")


@dataclasses.dataclass(frozen=True)
class Rewind(Phase):
    """Back to the weights and batch statistics remembered as `name`, under the present mask, with
    fresh moments.

    Args:
      name: what a `Remember` before it called them.
      keep: path patterns of leaves that stay as they are.
    """

    name: str
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check.text("Rewind's name", self.name)
        object.__setattr__(self, "keep", check.patterns("keep", self.keep))

    @property
    def rewinds_to(self) -> str:
        """The name that it goes back to."""
        return self.name

    def check_after(self, before: Before) -> None:
        """The name is known."""
        if self.name not in before.remembered:
            raise PlanError(
                f"nothing is remembered as {self.name!r} by then; put Remember({self.name!r}) "
                "before it."
            )

    def check_network(self, network: NetworkShapes) -> None:
        """What it keeps is there."""
        check_patterns_match(self.keep, network)


@dataclasses.dataclass(frozen=True)
class Fork(Phase):
    """Every lineage becomes `members` children: copies of it with masks and keys of their own, and
    fresh moments.

    What comes before is done once per parent, what comes after once per child, in groups.

    Args:
      members: children of each lineage.
      masks: "random" (each child an independent random mask), "anti_random" (pairs of a mask at 50
        % and its complement), "partition" (disjoint masks, each 1 / members of the weights), or
        "parent" (the parent's own).
      sparsity: share of zeros of a random mask; 0.5 if None, and given by the kind of masks where
        it is not random.
      unit: what is pruned, "connection" (weights) or "neuron" (whole units; see
        `jaxtickets.masks.units`).
      scope: "layerwise" (the same share in every layer) or "global".
      keep_dense: path patterns of layers that lose nothing; None for the network's last, which is
        found by following its operations.
    """

    members: int
    masks: Literal["random", "anti_random", "partition", "parent"]
    sparsity: float | None = None
    unit: Literal["connection", "neuron"] = "connection"
    scope: Scope = "layerwise"
    keep_dense: tuple[str, ...] | None = None
    structure: Structure = UNSTRUCTURED

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        check_structure("Fork's structure", self.structure)
        if self.structure.needs_units:
            raise PlanError(f"children of {self.structure} are Fork(unit='neuron').")
        check.positive_int("members (the children of a Fork)", self.members, most=checks.MOST)
        check.choice("masks", self.masks, ("random", "anti_random", "partition", "parent"))
        check.choice("unit", self.unit, ("connection", "neuron"))
        check.choice("scope", self.scope, get_args(Scope))
        if self.keep_dense is not None:
            object.__setattr__(self, "keep_dense", check.patterns("keep_dense", self.keep_dense))
        if self.masks == "anti_random":
            if self.members % 2:
                raise PlanError(
                    f"anti_random masks come in pairs: members is even; got {self.members}. Take"
                    f" {self.members + 1}."
                )
            if self.sparsity not in (None, 0.5):
                raise PlanError(
                    f"anti_random masks are at sparsity 0.5, half and half; got {self.sparsity!r}."
                    " Use masks='random' for another."
                )
        elif self.masks == "random":
            if self.sparsity is not None:
                check.fraction("Fork's sparsity", self.sparsity, "the share of zeros, ", ends="()")
        elif self.sparsity is not None:
            given = f"1 - 1/{self.members}" if self.masks == "partition" else "the parent's"
            raise PlanError(
                f"the sparsity of {self.masks} masks is {given}; leave it out (got"
                f" {self.sparsity!r})."
            )
        if self.masks == "partition" and self.members < 2:
            raise PlanError("a partition has at least 2 members; got 1.")

    @property
    def forks(self) -> bool:
        """Yes."""
        return True

    @property
    def children(self) -> int:
        """How many networks every network becomes."""
        return self.members

    @property
    def may_prune(self) -> bool:
        """Whether the children have masks of their own."""
        return self.masks != "parent"

    @property
    def prunes_units(self) -> bool:
        """Whether these are of whole units."""
        return self.may_prune and self.unit == "neuron"

    @property
    def child_sparsity(self) -> float | None:
        """Share of zeros of a child's mask where it is pruned; None where it is the parent's."""
        given = 0.5 if self.sparsity is None else self.sparsity
        return {
            "random": given,
            "anti_random": 0.5,
            "partition": 1 - 1 / self.members,
            "parent": None,
        }[self.masks]

    def sparsity_after(self, sparsity: float) -> float:
        """A child's, or the parent's where that is more."""
        return sparsity if self.child_sparsity is None else max(sparsity, self.child_sparsity)

    def check_after(self, before: Before) -> None:
        """It is the only one."""
        if before.forked:
            raise PlanError("a plan forks once; put all children into one Fork.")
        if self.may_prune:
            before.check_whole(f"masks={self.masks!r} are drawn over whole layers")

    def check_network(self, network: NetworkShapes) -> None:
        """The layers can be divided as the children want it."""
        if not self.may_prune:
            return
        task, params = network.task, network.params
        keep = kept_dense(
            self.keep_dense,
            task.apply,
            params,
            network.model_state,
            network.x_spec,
            task.prunable,
        )
        if self.unit == "neuron":
            check_patterns(network.prunable, keep)
        else:
            check_children(network.prunable, self.members, self.masks, self.scope, keep)


def check_score(name: str, value: Any) -> None:
    """Raise `PlanError` unless it is the name of a score."""
    if not isinstance(value, str) or value not in scores.names():
        raise PlanError(
            f"{name} is one of {', '.join(scores.names())}; got {checks.shown(value)}. Another one"
            " is named by @jaxtickets.scores.register."
        )


def check_structure(
    name: str, value: Any, *, grows: bool = False, keep_dense: tuple[str, ...] = ()
) -> None:
    """Raise `PlanError` unless it is a structure, of a mask that `grows` or not."""
    if not isinstance(value, Structure):
        raise PlanError(
            f"{name} is a jaxtickets.masks.Structure, such as NM(2, 4); got {checks.shown(value)}."
        )
    try:
        structured(value, grows=grows)
    except MaskError as error:
        raise PlanError(f"{name}: {error}") from None
    if keep_dense and value.needs_units:
        raise PlanError(
            f"{name}: layers that lose nothing have no {value}; leave out keep_dense={keep_dense!r}"
            " and give the task rules, prunable=, that leave them out."
        )


def check_growth(name: str, structure: Any, growth: str, drop_fraction: float) -> None:
    """Raise `PlanError` unless what a part of that name grows can learn."""
    if not isinstance(structure, Units):
        check_structure(f"{name}'s structure", structure, grows=True)
        return
    if growth not in UNIT_GROWTHS:
        raise PlanError(
            f"{name}'s growth of {structure} is one of {', '.join(UNIT_GROWTHS)}; got {growth!r}."
            " Every weight of a unit that is not there is 0, and says nothing of it."
        )
    if drop_fraction >= 1:
        raise PlanError(
            f"{name}'s drop_fraction is below 1 for {structure}: {drop_fraction:g} would leave"
            " layers without a unit that has learned anything. Take 0.5."
        )


def check_evolves(structure: Structure, before: Before) -> None:
    """Raise `PlanError` where a mask that goes through those phases has nothing to grow."""
    if not before.sparsity:
        raise PlanError(NO_MASK)
    before.check_whole(GROWS)
    if isinstance(structure, Units) and not before.units:
        raise PlanError(
            "no phase before it prunes whole units, so that none could come; give Start"
            f" structure={structure} as well, or put Prune(..., structure={structure}) before it."
        )


def check_prunes_more(sparsity: float, before: Before) -> None:
    """Raise `PlanError` where a network has that many zeros already."""
    if sparsity <= before.sparsity:
        raise PlanError(f"the network is at sparsity {before.sparsity:g} by then; prune to more.")


def check_patterns_match(patterns: Iterable[str], network: NetworkShapes) -> None:
    """Raise `PlanError` for a pattern of leaves that matches none."""
    paths = leaf_paths(network.params)
    for pattern in patterns:
        if not any(re.search(pattern, path) for path in paths):
            raise PlanError(
                f"{pattern!r} matches none of the leaves of {network.task.name}:"
                f" {', '.join(paths)}."
            )
