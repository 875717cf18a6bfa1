"""The papers' own numbers, to print beside ours. Not a script.

Accuracy in per cent, as printed; standard errors and calibration where the papers give them. `*` in a source: quoted there from
Havasi et al., 2021.
"""

from __future__ import annotations

import dataclasses

from paper_tables import PAT, all_rows, gains

from jaxtickets.report.html import PaperRow
from jaxtickets.report.html.ours import network_of


@dataclasses.dataclass(frozen=True)
class Published:
    """One row of a paper's table."""

    accuracy: float
    source: str
    standard_error: float | None = None
    nll: float | None = None
    ece: float | None = None


# Whitaker and Whitley, table 1: 16 epochs in all. Accuracy and standard error on CIFAR-10, then on CIFAR-100.
_SMALL_BUDGET = {
    "LeNet(L, initial=torch)": {
        "independent": ((70.29, 0.21), (34.39, 0.18)),
        "dropout": ((70.06, 0.32), (28.98, 0.33)),
        "bagged": ((70.97, 0.13), (32.40, 0.11)),
        "pat_r": ((75.51, 0.06), (41.68, 0.14)),
        "pat_ar": ((75.75, 0.06), (41.85, 0.13)),
    },
    "ResNet(18)": {
        "independent": ((80.99, 0.11), (49.26, 0.09)),
        "dropout": ((72.97, 0.41), (37.69, 0.28)),
        "bagged": ((79.88, 0.05), (46.18, 0.06)),
        "pat_r": ((84.61, 0.07), (57.08, 0.07)),
        "pat_ar": ((84.68, 0.04), (57.26, 0.06)),
    },
    "DenseNet(121)": {
        "independent": ((84.14, 0.09), (56.62, 0.09)),
        "dropout": ((79.59, 0.36), (44.02, 0.58)),
        "bagged": ((81.16, 0.04), (48.48, 0.06)),
        "pat_r": ((86.26, 0.07), (62.02, 0.07)),
        "pat_ar": ((86.35, 0.04), (62.09, 0.06)),
    },
}
# Kobayashi et al. 2022: mean score of single members and of ensembles of five, in per cent: table 1 (BERT-base) and 3 (RoBERTa-base).
_MULTI_TICKET = {
    "bert": {
        "baseline": {"mrpc": (83.48, 84.34), "stsb": (88.35, 89.04)},
        "bagging": {"mrpc": (82.87, 84.19), "stsb": (88.17, 88.84)},
        "base_lt": {"mrpc": (83.84, 84.98), "stsb": (88.37, 89.16)},
        "active_lt": {"mrpc": (83.22, 84.60), "stsb": (88.39, 89.32)},
        "random_lt": {"mrpc": (83.53, 85.05), "stsb": (88.49, 89.35)},
    },
    "roberta": {
        "baseline": {"mrpc": (87.77, 88.47), "stsb": (89.52, 90.00)},
        "bagging": {"mrpc": (87.64, 88.12), "stsb": (89.34, 89.91)},
        "base_lt": {"mrpc": (87.72, 88.25), "stsb": (89.71, 90.07)},
        "active_lt": {"mrpc": (87.39, 88.51), "stsb": (88.46, 89.50)},
        "random_lt": {"mrpc": (87.86, 89.26), "stsb": (88.41, 89.39)},
    },
}
# Table 2, BERT-base on MRPC: Q, R, ND, D, C.
_MULTI_TICKET_DIVERSITY = {
    "baseline": (0.96, 0.72, -0.12, 0.09, 0.69),
    "base_lt": (0.93, 1.00, -0.11, 0.10, 0.62),
    "active_lt": (0.94, 0.94, -0.11, 0.11, 0.62),
    "random_lt": (0.94, 0.94, -0.11, 0.10, 0.63),
}
_SETS = ("cifar10", "cifar100")


def published(preset: str, dataset: str, network: str, method: str) -> Published | None:
    """What a paper reports for that method in that setting; None if nothing."""
    if dataset not in _SETS:
        return None
    which = _SETS.index(dataset)
    if preset == "table1":
        found = _SMALL_BUDGET.get(network, {}).get(method)
        return Published(found[which][0], f"{PAT}, table 1", found[which][1]) if found else None
    if preset == "paper":  # of several rows of a method the first: EDST with three tickets
        for row in paper_rows():
            if (row.method, row.network, row.dataset) == (method, network_of(network), dataset) and "nll" in row.scores:
                source = row.source + ("*" if "*" in row.title else "")
                return Published(100 * row.scores["accuracy"], source, nll=row.scores["nll"], ece=row.scores["ece"])
    return None


def paper_rows() -> list[PaperRow]:
    """All rows of the papers' tables, to stand beside ours in a report."""
    small = {network_of(network): rows for network, rows in _SMALL_BUDGET.items()}
    return [*all_rows(small), *gains(_MULTI_TICKET, _MULTI_TICKET_DIVERSITY)]


def multi_ticket_gain(family: str, task: str, scheme: str) -> dict[str, float | str] | None:
    """The single and ensemble scores, in per cent, that the Multi-Ticket paper reports of BERT-base or RoBERTa-base; None if none."""
    found = _MULTI_TICKET.get(family, {}).get(scheme, {}).get(task)
    source = f"Kobayashi et al. 2022, table {1 if family == 'bert' else 3}, {family}-base"
    return None if found is None else {"single": found[0], "ensemble": found[1], "source": source}


def multi_ticket_diversity(family: str, task: str, scheme: str) -> tuple[float, ...] | None:
    """Its five measures of diversity (table 2)."""
    return _MULTI_TICKET_DIVERSITY.get(scheme) if (family, task) == ("bert", "mrpc") else None
