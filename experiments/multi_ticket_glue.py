"""Multi-Ticket ensembles on GLUE: winning tickets of one pretrained BERT or RoBERTa, beside fine-tuning and bagging.

Paper: Kobayashi, Kiyono, Suzuki and Inui, Diverse Lottery Tickets Boost Ensemble from a Single Pretrained Model, 2022, arXiv:2205.11833.

    python experiments/multi_ticket_glue.py                                        # demo: made-up language, minutes on two CPU cores
    python experiments/multi_ticket_glue.py --preset small --model DIR --data-dir DIR --scheme baseline base_lt random_lt
    python experiments/multi_ticket_glue.py --preset paper --task mrpc --model bert-base-uncased --scheme random_lt
    python experiments/multi_ticket_glue.py --preset paper --cost                  # what it would take
    python experiments/multi_ticket_glue.py --scheme random_lt --tau-sweep 1e-6 1e-5 1e-4

Each scheme has a run folder of its own under --out: what is finished is loaded, what was interrupted goes on. results.json, tables and
figures of all schemes are made anew every time.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any, Literal, get_args

import running
import texts
from flags import Hardware
from rich.console import Console

import jaxtickets as jt
from jaxtickets import engine, evaluation, report
from jaxtickets.methods.multi_ticket import Scheme
from jaxtickets.plan import Plan
from jaxtickets.schedules import Linear

SCHEMES: tuple[Scheme, ...] = get_args(Scheme)


@dataclasses.dataclass(frozen=True)
class Config(Hardware):
    """Which schemes, on what, from how many seeds."""

    preset: Literal["demo", "small", "paper"] = "demo"
    """What the other flags start from. demo: a made-up language, and a small BERT pretrained on it for a minute. small: MRPC
    with a small pretrained model and a larger learning rate, one pruning, hours on a CPU. paper: BERT-base, 20 seeds."""
    scheme: tuple[Literal["all", "baseline", "bagging", "base_lt", "active_lt", "random_lt"], ...] = ("all",)
    """Those of the paper's to run beside each other, or all."""
    task: Literal["paraphrases", "cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"] = "mrpc"
    """Task of GLUE; paraphrases is the demo's own."""
    model: str = "bert-base-uncased"
    """Pretrained BERT or RoBERTa: a folder of a Hugging Face checkpoint, or a name on its hub. (The demo pretrains its own.)"""
    tokenizer: str | None = None
    """A folder, a name, or BERT's vocab.txt; the model's own if not given."""
    data_dir: Path | None = None
    """Where GLUE lies; see `jaxtickets.data.glue`."""
    seeds: int = 20
    """Members of every scheme."""
    groups: int = 2
    """Groups of seeds; an ensemble's members are of one group."""
    sizes: tuple[int, ...] = (2, 3, 4, 5)
    """Members of an ensemble: all ensembles of each size are scored."""
    sparsity: float = 0.3
    """Share of the prunable weights that a ticket has lost."""
    rounds: int = 3
    """Prunings on the way there."""
    epochs: float = 3
    """Epochs of each training."""
    lr: float = 2e-5
    """First learning rate; it falls linearly to 0 in every training."""
    batch_size: int = 32
    """Examples per step and member."""
    max_length: int = 128
    """Tokens of an example."""
    tau: float = 1e-5
    """Strength of the L1 penalty; it falls with the learning rate. (The paper does not publish its own.)"""
    tau_sweep: tuple[float, ...] = ()
    """Run the scheme once for each of these instead, and compare."""
    decoupled: bool = False
    """The penalty as a soft threshold after Adam's step, and not as a term of the loss."""
    bag: float = 0.9
    """Share of the training examples that a member of bagging sees."""
    rewind_head: bool = True
    """The task's head goes back to its first weights as well, in every round."""
    resamples: int = 1000
    """Resamples of the bootstrap over validation examples; 0 for none."""
    export: bool = False
    """Write every ticket as a Hugging Face checkpoint too, SCHEME/tickets/N."""
    pretrain_steps: int = 1000
    """Steps of the demo's pretraining; a folder that has a pretrained network keeps it."""
    seed: int = 0
    """Every member's key is derived from it."""
    out: Path | None = None
    """Folder of the run folders; runs/multi-ticket-TASK-PRESET if not given. The same command resumes."""
    cost: bool = False
    """Print what the schemes would cost in theoretical FLOPs, and end."""

    @property
    def folder(self) -> Path:
        """Where the run folders are."""
        return self.out or Path("runs") / f"multi-ticket-{self.task}-{self.preset}"

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        """Which."""
        return tuple(scheme for scheme in SCHEMES if scheme in self.scheme or "all" in self.scheme)

    def plan(self, scheme: Scheme) -> Plan:
        """The plan of a scheme."""
        names = ("sparsity", "rounds", "epochs", "tau", "decoupled", "bag", "batch_size", "rewind_head")
        given = {name: getattr(self, name) for name in names}
        return jt.multi_ticket(scheme, self.seeds, lr=Linear(self.lr), head=("^head/",), **given)


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
PRESETS = {"demo": DEMO, "small": SMALL, "paper": PAPER}


def main() -> None:
    """Parse and run."""
    config = running.parse(PRESETS, __doc__ or "")
    with running.one_line_errors():
        check(config)
        if config.cost:
            show_costs(config)
        elif config.tau_sweep:
            sweep(config)
        else:
            run(config, config.folder)


def check(config: Config) -> None:
    """What no plan can know."""
    if config.seeds % config.groups or config.groups < 1:
        raise jt.PlanError(f"--groups: {config.seeds} seeds do not divide into {config.groups} groups; take --groups 1.")
    most = config.seeds // config.groups
    if not config.sizes or not all(2 <= size <= most for size in config.sizes):
        allowed = f"from 2 to {most}, the seeds of a group" if most > 1 else "not to be had from one seed: take more --seeds"
        raise jt.PlanError(f"--sizes: sizes of ensembles are {allowed}; got {config.sizes}.")
    if not config.scheme:
        raise jt.PlanError(f"--scheme: one or more of {', '.join(SCHEMES)}, or all.")
    if config.tau_sweep and config.scheme not in (("active_lt",), ("random_lt",)):
        raise jt.PlanError(f"--tau-sweep: of a scheme with a penalty: --scheme random_lt or active_lt; got {' '.join(config.scheme)}.")
    if (config.task == "paraphrases") != (config.preset == "demo"):
        raise jt.PlanError("--task: paraphrases is the demo's task and its only one; take --preset small or paper for GLUE.")


def show_costs(config: Config) -> None:
    """Every plan, and what it would cost; nothing is read but the model's sizes."""
    task, blank = texts.blank(config)
    for scheme in config.schemes:
        running.show_cost(config.plan(scheme), task, blank)


def run(config: Config, folder: Path) -> dict[str, Any]:
    """All schemes: trained or loaded, measured, compared."""
    console = Console()
    running.share_programs(config.folder / "programs")
    plans = {scheme: config.plan(scheme) for scheme in config.schemes}
    given = texts.prepare(config, console)
    task, train, validation = given.task, given.train, given.validation
    console.print(f"{task.name} on {train.name}, {len(train):,} training and {len(validation):,} validation examples", highlight=False)
    rows, predictions, gains = [], {}, {}
    for scheme, plan in plans.items():
        console.print(f"{texts.TITLES[scheme]}: {folder / scheme}", highlight=False, soft_wrap=True)
        tickets = jt.fit(
            plan,
            task,
            train,
            key=config.seed,
            out=folder / scheme,
            **config.how(plan.width),
        )
        if config.export:
            texts.export(tickets, given.sizes, folder / scheme / "tickets")
        probabilities = texts.stored_predictions(tickets, validation, folder / scheme / "predictions.npz")
        gain = evaluation.ensemble_gain(probabilities, validation.y, texts.metric(config), sizes=config.sizes, groups=config.groups)
        cost = jt.cost(plan, task, train)
        rows.append(texts.row(config, scheme, tickets, probabilities, gain, validation, cost, folder / scheme))
        predictions[scheme], gains[scheme] = probabilities, gain
    texts.compare(config, rows, predictions, gains, validation.y)
    found = report.finite(
        {
            "command": running.shown_command(sys.argv),
            "preset": config.preset,
            "synthetic": given.synthetic,
            "dataset": running.data_record(train, validation, "validation"),
            "network": task.name,
            "metric": texts.metric(config),
            "seeds": config.seeds,
            "groups": config.groups,
            "size": max(config.sizes),
            "tau": config.tau,
            "rows": rows,
            "versions": engine.versions(),
        }
    )
    engine.write_json(folder / "results.json", found)
    (folder / "tables.md").write_text(report.markdown_schemes(found) + "\n")
    Console(width=max(console.width, 130)).print(report.schemes_table(found))
    figures = (report.draw_gains(found, folder / "gains.png"), report.draw_overlaps(found, folder / "overlaps.png"))
    console.print("wrote " + ", ".join(str(file) for file in (folder / "results.json", *figures) if file), highlight=False, soft_wrap=True)
    return found


def sweep(config: Config) -> None:
    """The scheme at several strengths of the penalty, beside one without (base_lt)."""
    points, found = [], {}
    for tau in (0.0, *config.tau_sweep):
        scheme: Any = config.scheme if tau else ("base_lt",)
        found = run(dataclasses.replace(config, scheme=scheme, tau=tau or config.tau, tau_sweep=()), config.folder / f"tau-{tau:g}")
        (row,) = found["rows"]
        points.append({"tau": tau} | {name: row[name] for name in ("gain", "mask_iou", "oracle", "prediction_disagreement")})
    about = {name: found[name] for name in ("preset", "dataset", "network", "metric", "seeds", "size", "versions")}
    swept = {"command": running.shown_command(sys.argv), "scheme": config.scheme[0], **about, "points": points}
    engine.write_json(config.folder / "tau.json", swept)
    console = Console()
    console.print(report.strengths_table(swept))
    console.print(f"wrote {config.folder / 'tau.json'}", highlight=False)


if __name__ == "__main__":
    main()
