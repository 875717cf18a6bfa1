"""The papers' own numbers, to print beside ours. Not a script.

Accuracy in per cent, as printed; standard errors and calibration where the papers give them. `*` in a source: quoted there from
Havasi et al., 2021.
"""

from __future__ import annotations

import dataclasses

PAT = "Whitaker and Whitley 2022"
FREE = "Liu et al. 2022"


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
# WRN-28-10: source, then accuracy, NLL and ECE on CIFAR-10, then on CIFAR-100.
_LARGE_BUDGET = {
    "independent": (f"{FREE}, table 1*", (96.0, 0.159, 0.023), (79.8, 0.875, 0.086)),
    "mc_dropout": (f"{FREE}, table 1*", (95.9, 0.160, 0.024), (79.6, 0.830, 0.050)),
    "mimo": (f"{FREE}, table 1*", (96.4, 0.123, 0.010), (82.0, 0.690, 0.022)),
    "treenet": (f"{FREE}, table 1*", (95.9, 0.158, 0.018), (80.8, 0.777, 0.047)),
    "batch_ensemble": (f"{FREE}, table 1*", (96.2, 0.143, 0.021), (81.5, 0.740, 0.056)),
    "edst": (f"{FREE}, table 1", (96.3, 0.127, 0.012), (82.2, 0.672, 0.034)),
    "ltr": (f"{FREE}, table 1", (96.2, 0.133, 0.015), (82.2, 0.703, 0.045)),
    "static_sparse": (f"{FREE}, table 1", (96.0, 0.133, 0.014), (82.4, 0.691, 0.035)),
    "prune_finetune": (f"{FREE}, table 1", (96.4, 0.129, 0.011), (83.2, 0.639, 0.020)),
    "dst": (f"{FREE}, table 1", (96.3, 0.122, 0.010), (83.3, 0.623, 0.018)),
    "dense_ensemble": (f"{FREE}, table 1*", (96.6, 0.114, 0.010), (82.7, 0.666, 0.021)),
    "snapshot": (f"{PAT}, table 2", (96.3, 0.131, 0.015), (82.1, 0.661, 0.040)),
    "fge": (f"{PAT}, table 2", (96.3, 0.126, 0.015), (82.3, 0.653, 0.038)),
    "pat_ar": (f"{PAT}, table 2", (96.48, 0.113, 0.005), (82.67, 0.634, 0.013)),
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
    if preset == "paper" and network == "WideResNet(28, 10)" and method in _LARGE_BUDGET:
        source, *scores = _LARGE_BUDGET[method]
        accuracy, nll, ece = scores[which]
        return Published(accuracy, source.replace("table 1", f"table {which + 1}") if FREE in source else source, nll=nll, ece=ece)
    return None


def multi_ticket_gain(family: str, task: str, scheme: str) -> dict[str, float | str] | None:
    """The single and ensemble scores, in per cent, that the Multi-Ticket paper reports of BERT-base or RoBERTa-base; None if none."""
    found = _MULTI_TICKET.get(family, {}).get(scheme, {}).get(task)
    source = f"Kobayashi et al. 2022, table {1 if family == 'bert' else 3}, {family}-base"
    return None if found is None else {"single": found[0], "ensemble": found[1], "source": source}


def multi_ticket_diversity(family: str, task: str, scheme: str) -> tuple[float, ...] | None:
    """Its five measures of diversity (table 2)."""
    return _MULTI_TICKET_DIVERSITY.get(scheme) if (family, task) == ("bert", "mrpc") else None
