"""What a run comes to: the numbers of `results.json`, and the table that shows them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from jaxtickets.ensemble import TicketEnsemble
from jaxtickets.evaluation import Evaluation
from jaxtickets.ledger import PlanCost


def results(tickets: TicketEnsemble, evaluation: Evaluation, cost: PlanCost, folder: str | Path) -> dict[str, Any]:
    """Scores, diversity, cost and time of a finished run.

    Args:
      tickets: what the run collected.
      evaluation: of them, on test data.
      cost: the plan's ledger.
      folder: the run folder, for the measured seconds and versions.

    Returns:
      What `Evaluation.to_dict` has: `ensemble` and `members` (accuracy, nll, ece, adaptive_ece, brier), `members_mean`,
      `diversity` (disagreement, kl, mask_iou), `per_class`, `reliability` and more; files of before have no
      `adaptive_ece`, `per_class`, `reliability`, `combine` and `parts`. Beside it `cost` (training and inference ratio,
      density, and more), `seconds` (train, compile, total), `versions`, `plan`. Only what JSON knows: an infinite or
      undefined number is None.
    """
    timing = json.loads((Path(folder) / "timing.json").read_text())
    measured = evaluation.to_dict()
    for number, score in enumerate(measured["members"]):
        info = tickets.tickets[number // tickets.heads].info
        score |= {"density": info.get("density"), "ever_active": info.get("ever_active")}
    found = measured | {"cost": cost.to_dict()} | timing | {"plan": cost.plan.to_json()}
    return finite(found)


def results_table(rows: Mapping[str, Mapping[str, Any]]) -> Group:
    """Members, their mean and the ensemble of every run in `rows` (name to `results`), best seen in a terminal."""
    bins = next(iter(rows.values()))["ece_bins"]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for heading in ("acc %", "NLL", "ECE %", "Brier", "dens", "train", "infer", "sec"):
        table.add_column(heading, justify="right", no_wrap=True)
    notes = []
    for name, run in rows.items():
        cost, members = run["cost"], run["members"]
        if len(members) > 1:
            for number, member in enumerate(members):
                each = cost["inference"] / len(members)
                table.add_row(f"member {number}", *_scores(member), f"{member['density']:.3f}", "", f"{each:.2f}x", "", style="dim")
            table.add_row("mean of members", *_scores(run["members_mean"]), "", "", "", "")
        seconds = f"{run['seconds']['total']:,.0f}"
        ratios = (f"{cost['density']:.3f}", f"{cost['training']:.2f}x", f"{cost['inference']:.2f}x", seconds)
        table.add_row(f"{name} ensemble" if len(members) > 1 else name, *_scores(run["ensemble"]), *ratios, style="bold", end_section=True)
        if len(members) > 1:
            diversity = run["diversity"]
            overlap = "" if diversity["mask_iou"] is None else f", mask IoU {diversity['mask_iou']:.3f}"
            notes.append(f"{name}: prediction disagreement {diversity['disagreement']:.2%}, KL {diversity['kl']:.4f}{overlap}.")
    notes.append(
        f"ECE over {bins} bins. train, infer: theoretical FLOPs as multiples of one dense training run and one dense forward "
        "pass; masks simulate sparsity with dense compute. Seconds are measured."
    )
    return Group(table, Text("\n".join(notes)))


def _scores(scores: Mapping[str, Any]) -> tuple[str, str, str, str]:
    def number(name: str, times: float, digits: int) -> str:
        return "inf" if scores[name] is None else f"{times * scores[name]:.{digits}f}"

    return number("accuracy", 100, 2), number("nll", 1, 3), number("ece", 100, 1), number("brier", 1, 3)


def finite(value: Any) -> Any:
    """The value as JSON knows it: infinite and undefined numbers, however deep, are None."""
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
