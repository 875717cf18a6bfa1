"""The papers' tables, row by row, to stand beside ours in a report. Not a script.

Numbers as printed. Of FreeTickets: tables 1 to 5, 7, 8 and 11 to 13; of Prune and Tune: 1 and 2; of Multi-Ticket: 1 to 3. Epochs are those
of all networks together, where the paper's setting says them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from jaxtickets.report.html import PaperRow

FREE = "Liu et al. 2022"
PAT = "Whitaker and Whitley 2022"
MULTI = "Kobayashi et al. 2022"
_WRN = "WRN-28-10"
_SETS = ("cifar10", "cifar100")
_NAMES = ("accuracy", "nll", "ece", "corrupted_accuracy", "corrupted_nll", "corrupted_ece", "training")

# FreeTickets, tables 1 and 2: title, method, members, sparsity, epochs; then acc, NLL, ECE, cAcc, cNLL, cECE on CIFAR-10 and on CIFAR-100;
# training FLOPs as multiples of the single dense network. `*`: quoted there from Havasi et al. 2021.
_FREE_CIFAR = (
    ("Single Dense Model*", "independent", 1, 0.0, 250,
     (96.0, 0.159, 0.023, 76.1, 1.050, 0.153), (79.8, 0.875, 0.086, 51.4, 2.700, 0.239), 1.0),
    ("Monte Carlo Dropout*", "mc_dropout", None, 0.0, 250,
     (95.9, 0.160, 0.024, 68.8, 1.270, 0.166), (79.6, 0.830, 0.050, 42.6, 2.900, 0.202), 1.0),
    ("MIMO*", "mimo", 3, 0.0, 250,
     (96.4, 0.123, 0.010, 76.6, 0.927, 0.112), (82.0, 0.690, 0.022, 53.7, 2.284, 0.129), 1.0),
    ("EDST Ensemble", "edst", 3, 0.8, 450,
     (96.3, 0.127, 0.012, 77.9, 0.814, 0.093), (82.2, 0.672, 0.034, 54.0, 2.156, 0.137), 0.61),
    ("EDST Ensemble", "edst", 7, 0.9, 850,
     (96.1, 0.122, 0.008, 77.2, 0.803, 0.081), (82.6, 0.653, 0.036, 52.7, 2.410, 0.170), 0.57),
    ("TreeNet*", "treenet", 3, 0.0, 250,
     (95.9, 0.158, 0.018, 75.6, 0.969, 0.137), (80.8, 0.777, 0.047, 53.5, 2.295, 0.176), 1.52),
    ("BatchEnsemble*", "batch_ensemble", 4, 0.0, 250,
     (96.2, 0.143, 0.021, 77.5, 1.020, 0.129), (81.5, 0.740, 0.056, 54.1, 2.490, 0.191), 1.10),
    ("LTR Ensemble", "ltr", 3, 0.8, None,
     (96.2, 0.133, 0.015, 76.7, 0.950, 0.118), (82.2, 0.703, 0.045, 53.2, 2.345, 0.180), 1.75),
    ("Static Sparse Ensemble", "static_sparse", 3, 0.8, 750,
     (96.0, 0.133, 0.014, 76.2, 0.920, 0.098), (82.4, 0.691, 0.035, 52.5, 2.468, 0.167), 1.01),
    ("PF Ensemble", "prune_finetune", 3, 0.8, 1500,
     (96.4, 0.129, 0.011, 78.2, 0.801, 0.082), (83.2, 0.639, 0.020, 54.2, 2.182, 0.115), 3.75),
    ("DST Ensemble", "dst", 3, 0.8, 750,
     (96.3, 0.122, 0.010, 78.8, 0.766, 0.075), (83.3, 0.623, 0.018, 55.0, 2.109, 0.104), 1.01),
    ("Dense Ensemble*", "dense_ensemble", 4, 0.0, 1000,
     (96.6, 0.114, 0.010, 77.9, 0.810, 0.087), (82.7, 0.666, 0.021, 54.1, 2.270, 0.138), 4.0),
)  # fmt: skip
# Prune and Tune, table 2: its own runs (the others are quoted from the tables above, some of them with other digits).
_PAT_CIFAR = (
    ("SSE", "snapshot", 5, 0.0, 200,
     (96.3, 0.131, 0.015, 76.0, 1.060, 0.121), (82.1, 0.661, 0.040, 52.2, 2.595, 0.145), 1.0),
    ("FGE", "fge", 12, 0.0, 200,
     (96.3, 0.126, 0.015, 75.4, 1.157, 0.122), (82.3, 0.653, 0.038, 51.7, 2.638, 0.137), 1.0),
    ("PAT (AR + 1C)", "pat_ar", 6, 0.5, 200,
     (96.48, 0.113, 0.005, 76.23, 0.972, 0.081), (82.67, 0.634, 0.013, 52.70, 2.487, 0.131), 0.85),
)  # fmt: skip
# FreeTickets, table 3, ResNet-50 on ImageNet: the same, on the validation set and corrupted; the scores on ImageNet-A are left out.
_FREE_IMAGENET = (
    ("Single Dense Model*", "independent", 1, 0.0, 150, (76.1, 0.943, 0.039, 40.5, 3.200, 0.105), 1.0),
    ("MIMO (rho = 0.6)*", "mimo", 2, 0.0, 150, (77.5, 0.887, 0.037, 43.3, 3.030, 0.106), 1.0),
    ("EDST Ensemble", "edst", 2, 0.8, 170, (76.9, 0.974, 0.060, 41.3, 3.074, 0.055), 0.48),
    ("EDST Ensemble", "edst", 4, 0.8, 310, (77.7, 0.935, 0.064, 42.6, 2.987, 0.058), 0.87),
    ("TreeNet*", "treenet", 2, 0.0, None, (78.1, 0.852, 0.017, 42.4, 3.052, 0.073), 1.33),
    ("BatchEnsemble*", "batch_ensemble", 4, 0.0, None, (76.7, 0.944, 0.050, 41.8, 3.180, 0.110), 1.10),
    ("DST Ensemble", "dst", 2, 0.8, 400, (78.3, 0.914, 0.060, 43.7, 2.910, 0.057), 1.12),
    ("Dense Ensemble*", "dense_ensemble", 4, 0.0, 600, (77.5, 0.877, 0.031, 42.1, 2.990, 0.051), 4.0),
)  # fmt: skip
# FreeTickets, table 4 (M = 3, S = .8): disagreement and KL on CIFAR-10, on CIFAR-100.
_DIVERSITY = (
    ("LTR Ensemble", "ltr", 3, 0.8, (0.026, 0.056), (0.111, 0.185)),
    ("Static Ensemble", "static_sparse", 3, 0.8, (0.031, 0.079), (0.156, 0.401)),
    ("EDST Ensemble", "edst", 3, 0.8, (0.031, 0.073), (0.126, 0.237)),
    ("PF Ensemble", "prune_finetune", 3, 0.8, (0.035, 0.103), (0.148, 0.345)),
    ("DST Ensemble", "dst", 3, 0.8, (0.035, 0.095), (0.166, 0.411)),
    ("Dense Ensemble", "dense_ensemble", 4, 0.0, (0.032, 0.086), (0.145, 0.338)),
)
# Table 5: without exploration. DST without it is the static ensemble.
_NO_EXPLORATION = (
    ("EDST Ensemble (w/o Parameter Exploration)", "edst_without_exploration", (96.0, 0.017, 0.042), (81.8, 0.081, 0.148)),
    ("DST Ensemble (w/o Parameter Exploration)", "static_sparse", (96.0, 0.031, 0.079), (82.4, 0.156, 0.401)),
)
# Table 7: disagreement on the first ten classes of CIFAR-100. Its heading splits the class "aquarium fish" in two and leaves out the tenth;
# here the ten numbers are those of classes 0 to 9.
_CLASSES = (
    ("LTR Ensemble", "ltr", (0.027, 0.063, 0.140, 0.170, 0.157, 0.070, 0.127, 0.110, 0.027, 0.030)),
    ("EDST Ensemble", "edst", (0.043, 0.067, 0.153, 0.187, 0.137, 0.090, 0.107, 0.080, 0.027, 0.067)),
    ("Static Ensemble", "static_sparse", (0.077, 0.090, 0.220, 0.180, 0.227, 0.157, 0.120, 0.097, 0.047, 0.073)),
    ("DST Ensemble", "dst", (0.057, 0.080, 0.227, 0.277, 0.230, 0.137, 0.160, 0.133, 0.053, 0.093)),
)
# Table 8: Pearson's and Spearman's correlation between members' mean accuracy and the ensemble's, on CIFAR-10, on CIFAR-100.
_CORRELATIONS = (("EDST Ensemble", "edst", (0.459, 0.257), (0.979, 0.829)), ("DST Ensemble", "dst", (0.332, 0.319), (0.972, 0.812)))
# Tables 11 and 12: ROC-AUC against SVHN, the other CIFAR and Gaussian noise. Table 13: FGSM at 8/255, min / mean / max.
_OOD_AND_FGSM = (
    ("Static Sparse Ensemble", "static_sparse", 3, 0.8,
     ((0.9229, 0.9082, 0.9910), (0.8165, 0.8141, 0.9560)), ((39.28, 39.46, 39.77), (16.44, 16.81, 17.19))),
    ("DST Ensemble", "dst", 3, 0.8,
     ((0.9533, 0.9114, 0.9969), (0.8207, 0.8221, 0.8865)), ((37.30, 38.49, 39.12), (14.96, 15.59, 15.90))),
    ("EDST Ensemble", "edst", 3, 0.8,
     ((0.9487, 0.9045, 0.9928), (0.8585, 0.8137, 0.9046)), ((39.66, 40.35, 41.00), (13.00, 13.19, 13.56))),
    ("EDST Ensemble", "edst", 7, 0.9,
     ((0.9658, 0.9115, 0.9956), (0.8092, 0.8148, 0.9436)), ((35.68, 37.74, 38.67), (14.45, 14.93, 15.56))),
    ("Single Dense Models", "independent", 1, 0.0, ((0.9655, 0.8847, 0.9803), (0.7584, 0.8045, 0.7374)), None),
)  # fmt: skip


# Tables 4 to 13 are of the networks of tables 1 and 2.
_EPOCHS = {(method, members): epochs for _, method, members, _, epochs, *_ in _FREE_CIFAR}


def all_rows(small_budget: Mapping[str, Mapping[str, tuple[tuple[float, float], ...]]]) -> Iterator[PaperRow]:
    """Every row.

    Args:
      small_budget: Prune and Tune's table 1 by network and method: accuracy and its standard error, in per cent, on CIFAR-10, on CIFAR-100.
    """
    yield from _accuracies()
    yield from _diversities()
    yield from _robustness()
    names = {"independent": "Independent", "dropout": "Dropout", "bagged": "Bagged", "pat_r": "PAT (R)", "pat_ar": "PAT (AR)"}
    for network, rows in small_budget.items():
        for method, each in rows.items():
            alone = method in ("independent", "dropout")
            for dataset, (accuracy, deviation) in zip(_SETS, each, strict=True):
                scores, error = {"accuracy": accuracy / 100}, {"accuracy": deviation / 100}
                sparsity, members = 0.5 if method.startswith("pat") else 0.0, 1 if alone else 8
                title = f"{names[method]}, 16 epochs"
                yield PaperRow(f"{PAT}, table 1", title, method, network, dataset, scores, members, sparsity, 16, error)


def _accuracies() -> Iterator[PaperRow]:
    for own, rows in ((True, _FREE_CIFAR), (False, _PAT_CIFAR)):
        for title, method, members, sparsity, epochs, *scores, training in rows:
            for which, dataset in enumerate(_SETS):
                source = f"{FREE}, table {which + 1}" if own else f"{PAT}, table 2"
                yield PaperRow(
                    source,
                    _sized(title, members, sparsity),
                    method,
                    _WRN,
                    dataset,
                    _six(scores[which], training),
                    members,
                    sparsity,
                    epochs,
                )
    for title, method, members, sparsity, epochs, scores, training in _FREE_IMAGENET:
        sized = _sized(title, members, sparsity)
        yield PaperRow(f"{FREE}, table 3", sized, method, "ResNet-50", "imagenet", _six(scores, training), members, sparsity, epochs)


def _diversities() -> Iterator[PaperRow]:
    for title, method, members, sparsity, *each in _DIVERSITY:
        for dataset, pair in zip(_SETS, each, strict=True):
            scores: dict[str, float] = dict(zip(("disagreement", "kl"), pair, strict=True))
            yield PaperRow(
                f"{FREE}, table 4",
                _sized(title, members, sparsity),
                method,
                _WRN,
                dataset,
                scores,
                members,
                sparsity,
                _EPOCHS[method, members],
            )
    for title, method, *each in _NO_EXPLORATION:
        for dataset, (accuracy, disagreement, kl) in zip(_SETS, each, strict=True):
            scores = {"accuracy": accuracy / 100, "disagreement": disagreement, "kl": kl}
            yield PaperRow(f"{FREE}, table 5", _sized(title, 3, 0.8), method, _WRN, dataset, scores, 3, 0.8, _EPOCHS.get((method, 3)))
    for title, method, values in _CLASSES:
        scores = {f"class_{i}": value for i, value in enumerate(values)}
        yield PaperRow(f"{FREE}, table 7", title, method, _WRN, "cifar100", scores, 3, 0.8, _EPOCHS[method, 3])
    for title, method, *each in _CORRELATIONS:
        for dataset, (pearson, spearman) in zip(_SETS, each, strict=True):
            yield PaperRow(f"{FREE}, table 8", title, method, _WRN, dataset, {"pearson": pearson, "spearman": spearman})


def _robustness() -> Iterator[PaperRow]:
    for title, method, members, sparsity, areas, attacked in _OOD_AND_FGSM:
        for which, dataset in enumerate(_SETS):
            names = ("ood_svhn", f"ood_{_SETS[1 - which]}", "ood_gaussiannoise")
            sized, scores = _sized(title, members, sparsity), {str(name): area for name, area in zip(names, areas[which], strict=True)}
            yield PaperRow(f"{FREE}, table {11 + which}", sized, method, _WRN, dataset, scores, members, sparsity, _EPOCHS[method, members])
            if attacked is not None:
                found = {f"fgsm_{name}": value / 100 for name, value in zip(("min", "mean", "max"), attacked[which], strict=True)}
                yield PaperRow(f"{FREE}, table 13", sized, method, _WRN, dataset, found, members, sparsity, _EPOCHS[method, members])


def gains(
    schemes: Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]], diversity: Mapping[str, tuple[float, ...]]
) -> Iterator[PaperRow]:
    """Rows of Multi-Ticket's tables 1 and 3 (by family, scheme and task: single and ensembles of five, in per cent) and 2 (by scheme)."""

    def row(table: int, scheme: str, family: str, task: str, scores: dict[str, float]) -> PaperRow:
        sparsity, trainings = (0.3, 4) if scheme.endswith("_lt") else (0.0, 1)  # three rounds of pruning, then the ticket
        title = scheme.upper().replace("_", "-")
        return PaperRow(f"{MULTI}, table {table}", title, scheme, f"{family}-base", task, scores, 5, sparsity, 5 * 3 * trainings)

    for family, rows in schemes.items():
        for scheme, tasks in rows.items():
            for task, (single, ensemble) in tasks.items():
                scores = {"single": single / 100, "ensemble": ensemble / 100, "difference": (ensemble - single) / 100}
                yield row(1 if family == "bert" else 3, scheme, family, task, scores)
    names = ("q", "ratio_errors", "negative_double_fault", "oracle_disagreement", "correlation")
    for scheme, values in diversity.items():
        yield row(2, scheme, "bert", "mrpc", dict(zip(names, values, strict=True)))


def _six(scores: tuple[float, ...], training: float) -> dict[str, float]:
    values = (scores[0] / 100, *scores[1:3], scores[3] / 100, *scores[4:], training)
    return dict(zip(_NAMES, values, strict=True))


def _sized(title: str, members: int | None, sparsity: float) -> str:
    parts = [f"M={members}"] if members not in (None, 1) else []
    return f"{title} ({', '.join([*parts, *([f'S={sparsity:g}'] if sparsity else [])])})" if parts or sparsity else title
