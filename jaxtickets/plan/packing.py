"""The phase after which dense layers hold their blocks and nothing else."""

from __future__ import annotations

import dataclasses

from jaxtickets.errors import PlanError
from jaxtickets.masks.structure import NM, Blocks, Structure, Unstructured
from jaxtickets.masks.whole_units import Units
from jaxtickets.messages import checks
from jaxtickets.plan.phase import Before, Phase

BLOCKS = Blocks(32, 32)

check = checks.Checks(PlanError)


@dataclasses.dataclass(frozen=True)
class Pack(Phase):
    """From here on dense layers made of blocks hold the blocks that keep any weight, and multiply
    by those alone.

    For masks of `structure=Blocks(32, 32)`. A packed layer computes what the masked one does, by a
    gather and one batched product, in a share of the FLOPs and the memory; its moments and what is
    remembered are packed with it (`jaxtickets.masks.packing`). What that gains in seconds depends
    on the layer: on a CPU much in wide layers of a perceptron, next to nothing in the feed-forward
    part of a small BERT, where gathering the tokens takes as long as what it saves. Layers that
    keep more than `at_most`, or that do not divide into blocks, stay masked; the message says why.

    What follows trains, prunes, forks (`masks="parent"`), rewinds and collects; a mask that grows
    needs the gradients of all weights, and has its place before. After more pruning another `Pack`
    packs tighter; where nothing can be packed tighter it changes nothing, and says so. (Later
    prunings by blocks keep the number of blocks that the masked network would, but for layers
    whose edges are ragged.)

    Networks that train together come out in one shape, as large as the largest of them needs it;
    the others keep blocks of zeros. Only Linen modules run packed.

    Args:
      structure: the blocks that layers are cut into; masks may be made of multiples of them.
      at_most: the share of a layer that its packed form may be, in (0, 1]. Blocks are gathered, at
        a cost, so that a layer that keeps most of them gains nothing.

    >>> import dataclasses
    >>> import jaxtickets as jt
    >>> plan = jt.prune_finetune(sparsity=0.9, structure=jt.masks.Blocks(32, 32))
    >>> start, train, prune, *rest = plan.phases
    >>> print(dataclasses.replace(plan, phases=(start, train, prune, Pack(), *rest)))
    prune_finetune: 3 tickets, 500 epochs x 3 lineages, batch 128
      1. Start(width=3, sparsity=0)
      2. Train(250 epochs, lr=(0.1, 0.01 from 50%, 0.001 from 74.8%), \
optimizer=SGD(weight_decay=0.0005))
      3. Prune(sparsity=0.9, structure=Blocks(rows=32, columns=32))
      4. Pack()
      5. Train(250 epochs, lr=0.001, optimizer=SGD(weight_decay=0.0005))
      6. Collect()
    """

    structure: Blocks = BLOCKS
    at_most: float = 0.5

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        check_blocks(self.structure, PlanError)
        check.fraction("Pack's at_most", self.at_most, "a share of a layer, ", ends="(]")

    @property
    def packs(self) -> bool:
        """Yes."""
        return True

    def check_after(self, before: Before) -> None:
        """Masks may be made of its blocks."""
        if before.structures and not any(self._fits(one) for one in before.structures):
            raise PlanError(
                f"no phase before it prunes by {self.structure}, so that there is nothing to pack;"
                f" give the phases that prune structure={self.structure}."
            )

    def _fits(self, structure: Structure | None) -> bool:
        """Whether masks of that structure may be whole blocks; of one not known they may."""
        if isinstance(structure, Blocks):
            own = self.structure
            return not (structure.rows % own.rows or structure.columns % own.columns)
        return not isinstance(structure, Unstructured | NM | Units)


def check_blocks(structure: object, error: type[Exception]) -> None:
    """Raise an error unless layers can be packed by it."""
    if not isinstance(structure, Blocks):
        raise error(
            "what is packed are blocks: structure is jaxtickets.masks.Blocks(rows, columns), such"
            f" as Blocks(32, 32); got {checks.shown(structure)}."
        )
