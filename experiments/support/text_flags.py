"""Flags of the text experiment, and its presets."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

from support.flags import Count, Count0, Different, Epochs, Hardware, Rate, Seed, There, Within

import jaxtickets as jt
from jaxtickets.files import paths
from jaxtickets.methods.imp_tickets import Scheme
from jaxtickets.plan import Plan
from jaxtickets.schedules import Linear

SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
Structure = Literal["connections", "units"]
UNITS = "_units"
"""What the name of a row of units ends in."""


@dataclasses.dataclass(frozen=True)
class Config(Hardware):
    """Flags of the text experiment: which schemes, on what, from how many seeds."""

    preset: Literal[
        "demo", "small", "paper", "paper_stsb", "paper_roberta", "paper_roberta_stsb"
    ] = "demo"
    """What the other flags start from. demo: a made-up language, and a small BERT pretrained on it
    for a minute. small: MRPC with a small pretrained model and a larger learning rate, one pruning,
    hours on a CPU. paper: BERT-base on MRPC, 20 seeds; paper_stsb: the same on STS-B (table 1);
    paper_roberta, paper_roberta_stsb: RoBERTa-base (table 3).
    """
    scheme: Annotated[
        tuple[Literal["all", "baseline", "bagging", "base_lt", "active_lt", "random_lt"], ...],
        Different(),
    ] = ("all",)
    """Those of the paper's to run beside each other, or all."""
    task: Literal[
        "paraphrases", "cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"
    ] = "mrpc"
    """Task of GLUE; paraphrases is the demo's own."""
    model: str = "bert-base-uncased"
    """Pretrained BERT or RoBERTa: a folder of a Hugging Face checkpoint, or a name on its hub. (The
    demo pretrains its own.)
    """
    tokenizer: str | None = None
    """A folder, a name, or BERT's vocab.txt; the model's own if not given."""
    data_dir: Annotated[Path | None, There("folder")] = None
    """Where GLUE lies; see `jaxtickets.data.glue_loading`."""
    seeds: Annotated[int, Within(1, 10_000)] = 20
    """Members of every scheme."""
    groups: Annotated[int, Within(1, 10_000)] = 2
    """Groups of seeds; an ensemble's members are of one group."""
    sizes: Annotated[tuple[int, ...], Within(1, 10_000), Different()] = (2, 3, 4, 5)
    """Members of an ensemble: all ensembles of each size are scored."""
    sparsity: float = 0.3
    """Share of the prunable weights that a ticket has lost."""
    rounds: Annotated[int, Within(1, 1000)] = 3
    """Prunings on the way there."""
    structure: Annotated[tuple[Structure, ...], Different()] = ("connections",)
    """What a ticket lacks: single weights, or whole attention heads and feed-forward units, which
    are cut out, so that training and predicting with it take fewer seconds. Of both, every scheme
    of tickets is run with each.
    """
    scores: Literal["magnitude", "snip", "random"] | None = None
    """What is kept: weights of the largest magnitude, of the largest product with their gradient on
    a batch (snip), or any. If not given, magnitude, as in the paper, and of units snip: how large a
    head's weights are says little of what it is for.
    """
    epochs: Annotated[float, Epochs] = 3
    """Epochs of each training."""
    lr: Annotated[float, Rate] = 2e-5
    """First learning rate; it falls linearly to 0 in every training."""
    batch_size: Annotated[int, Count] = 32
    """Examples per step and member."""
    max_length: Annotated[int, Within(2, 1_000_000)] = 128
    """Tokens of an example."""
    tau: Annotated[float, Rate] = 1e-5
    """Strength of the L1 penalty; it falls with the learning rate. (The paper does not publish its
    own.)
    """
    tau_sweep: Annotated[tuple[float, ...], Within(above=0), Different(empty=True)] = ()
    """Run the scheme once for each of these instead, and compare."""
    decoupled: bool = False
    """The penalty as a soft threshold after Adam's step, and not as a term of the loss."""
    bag: float = 0.9
    """Share of the training examples that a member of bagging sees."""
    rewind_head: bool = True
    """The task's head goes back to its first weights as well, in every round."""
    beside: Annotated[tuple[Path, ...], There("folder"), Different(empty=True)] = ()
    """Folders of finished runs of this script, whose gains stand beside these in gains.png: the
    paper's figure 3 has MRPC and STS-B.
    """
    resamples: Annotated[int, Within(0, 1_000_000)] = 1000
    """Resamples of the bootstrap over validation examples; 0 for none."""
    side_by_side: Annotated[int, Count0] = 0
    """Measure the seconds apart from the runs: all rows in turns, so often, each at a thirteenth of
    its length, when nothing else runs on the machine. 0: the runs' own seconds.
    """
    export: bool = False
    """Write every ticket as a Hugging Face checkpoint too, SCHEME/tickets/N."""
    pretrain_steps: Annotated[int, Within(1, 1_000_000)] = 1000
    """Steps of the demo's pretraining; a folder that has a pretrained network keeps it."""
    seed: Annotated[int, Seed] = 0
    """Every member's key is derived from it."""
    out: Path | None = None
    """Folder of the run folders; runs/multi-ticket-TASK-PRESET if not given. The same command
    resumes.
    """
    cost: bool = False
    """Print what the schemes would cost in theoretical FLOPs, and end."""

    @property
    def folder(self) -> Path:
        """The folder that holds the run folders."""
        return paths.given(self.out or f"runs/multi-ticket-{self.task}-{self.preset}", "--out")

    @property
    def rows(self) -> tuple[str, ...]:
        """What is run, in a fixed order: schemes, and those of tickets of units with `UNITS`."""
        wanted = [scheme for scheme in SCHEMES if scheme in self.scheme or "all" in self.scheme]
        return tuple(
            scheme + (UNITS if structure == "units" else "")
            for scheme in wanted
            for structure in (self.structure if scheme.endswith("_lt") else ("connections",))
        )

    def plan(self, row: str) -> Plan:
        """The plan of a row."""
        names = (
            "sparsity",
            "rounds",
            "epochs",
            "tau",
            "decoupled",
            "bag",
            "batch_size",
            "rewind_head",
        )
        arguments: dict[str, Any] = {name: getattr(self, name) for name in names}
        units = row.endswith(UNITS)
        if units:
            arguments["structure"] = jt.masks.Units()
        arguments["scores"] = self.scores or ("snip" if units else "magnitude")
        scheme = cast(Scheme, row.removesuffix(UNITS))
        return jt.multi_ticket(
            scheme, self.seeds, lr=Linear(self.lr), head=("^head/",), **arguments
        )


PAPER = Config(preset="paper")
SMALL = Config(preset="small", seeds=5, groups=1, rounds=1, lr=1e-4, max_length=64)
DEMO = Config(
    preset="demo",
    task="paraphrases",
    model="made-up",
    seeds=3,
    groups=1,
    sizes=(2, 3),
    lr=1e-3,
    tau=3e-3,
    max_length=17,
)
ROBERTA = dataclasses.replace(PAPER, preset="paper_roberta", model="roberta-base")
PRESETS = {
    "demo": DEMO,
    "small": SMALL,
    "paper": PAPER,
    "paper_stsb": dataclasses.replace(PAPER, preset="paper_stsb", task="stsb"),
    "paper_roberta": ROBERTA,
    "paper_roberta_stsb": dataclasses.replace(ROBERTA, preset="paper_roberta_stsb", task="stsb"),
}
