"""Run folders and evaluations as the engine and the experiments write them, in a few lines. Not a test."""

import json

import jaxtickets as jt


def scores(accuracy, **more):
    return {"accuracy": accuracy, "nll": 0.5, "ece": 0.021, "brier": 0.3, **more}


def config(plan, name="LeNet(L, initial=torch)", fingerprint="8bf49a4d7d3215a2"):
    data = {
        "name": "cifar10",
        "examples": 50_000,
        "fingerprint": fingerprint,
        "augment": None,
        "prepare": "Standardise()",
    }
    run = {"plan": plan.to_json(), "task": {"name": name}, "data": data, "key": 0}
    return {
        "run": run,
        "versions": {"python": "3.11.7", "jax": "0.10.2", "backend": "cpu: 1 x cpu"},
        "started": "2026-01-02T03:04:05+00:00",
    }


def results(plan, accuracy=0.7572, members=8, name="LeNet(L, initial=torch)", seed=0, test=10_000):
    each = [scores(accuracy - 0.03, density=0.5, ever_active=0.5) for _ in range(members)]
    phases = [{"name": "Train 8 epochs", "steps": 3120, "flops": 6.72e13}]
    return {
        "command": "python experiments/compare_cifar.py --preset table1 --data-dir DIR",
        "dataset": {"name": "cifar10", "train": 50_000, "test": test},
        "model": name,
        "seed": seed,
        "ensemble": scores(accuracy),
        "members": each,
        "members_mean": scores(accuracy - 0.03),
        "diversity": {"disagreement": 0.227, "kl": 0.379, "mask_iou": 0.287}
        if members > 1
        else dict.fromkeys(("disagreement", "kl", "mask_iou")),
        "ece_bins": 15,
        "examples": test,
        "cost": {
            "training": 0.75,
            "inference": 4.0,
            "density": 0.5 if members > 1 else 1.0,
            "ticket_bytes": 68_400_000,
            "phases": phases,
        },
        "seconds": {"train": 2502.0, "compile": 9.0, "total": 2511.0},
        "versions": {"python": "3.11.7", "backend": "cpu: 1 x cpu"},
        "plan": plan.to_json(),
    }


def metrics(epochs, total):
    shared = {
        "group": 0,
        "branch": 0,
        "phase": 1,
        "name": f"Train {total} epochs",
        "lineages": [0],
        "children": [None],
        "lr": 0.001,
    }
    return [
        shared
        | {
            "epoch": float(e),
            "step_in_phase": 390 * e,
            "loss": [1 / e],
            "accuracy": [1 - 0.5 / e],
            "density": [1.0],
        }
        for e in epochs
    ]


def pat():
    return jt.prune_and_tune(8, 8, 1, masks="anti_random")


def write_run(folder, plan, found=None, finished=True, records=None, **about):
    """A run folder; `found` is its results.json, None if there is none."""
    (folder / "tickets").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config(plan, **about)))
    records = metrics(range(1, 4), 8) if records is None else records
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    if found is not None:
        (folder / "results.json").write_text(json.dumps(found))
    if finished:
        (folder / "timing.json").write_text(
            json.dumps({"seconds": {"train": 1.0, "compile": 1.0, "total": 2.0}, "versions": {}})
        )
        (folder / "tickets.safetensors").write_bytes(b"not read")
    return folder


def evaluation(names=("edst",), fingerprint="c0ffee", generated=False, sources=None, run=None):
    """An evaluation.json of every part, for a network of 10 classes."""
    rows = []
    for i, name in enumerate(names):
        diagram = {
            "count": [0, 4, 6],
            "confidence": [None, 0.5, 0.9],
            "accuracy": [None, 0.25, 1.0],
        }
        oracle = {
            "q": 0.91,
            "ratio_errors": 1.5,
            "negative_double_fault": -0.02,
            "disagreement": 0.05,
            "correlation": 0.4,
        }
        sets = [
            {
                "corruption": kind,
                "severity": level,
                "accuracy": 0.9 - 0.1 * level,
                "nll": 1.0,
                "ece": 0.1,
            }
            for kind in ("fog", "snow")
            for level in (1, 2)
        ]
        parts = {
            "corrupted": {
                "generated": generated,
                "sets": sets,
                "mean": {"accuracy": 0.7777, "nll": 0.8, "ece": 0.09},
            },
            "ood": {
                "svhn": {
                    "examples": 26_032,
                    "max_probability": 0.9487,
                    "entropy": 0.95,
                    "mutual_information": None,
                }
            },
            "adversarial": {
                "attack": "fgsm",
                "step": 8 / 255,
                "examples": 10_000,
                "crafted_on_members": [0.39, 0.41],
                "min": 0.39,
                "mean": 0.4,
            }
            | {"max": 0.41, "crafted_on_ensemble": 0.37, "clean": 0.963},
            "diversity": {
                "disagreement": 0.031,
                "kl": 0.073,
                "mask_iou": 0.36,
                "mask_hamming": 0.2,
                "weight_cosine": 0.1,
                "oracle": oracle,
            }
            | {"class_disagreement": [0.01 * c for c in range(10)], "itop": [0.71, 0.75]},
            "features": {"layers": ["conv1", "dense1"], "kl": [0.0123, 0.0456]},
        }
        found = {
            "ensemble": scores(0.961, adaptive_ece=0.0234),
            "members": [scores(0.95), scores(0.952)],
            "members_mean": scores(0.951),
            "diversity": {"disagreement": 0.031, "kl": 0.073, "mask_iou": 0.36},
            "ece_bins": 15,
            "examples": 10_000,
            "combine": "proba",
            "per_class": {
                "ensemble": [0.9 + 0.01 * c for c in range(10)],
                "members_mean": [0.9] * 10,
                "examples": [1000] * 10,
            },
            "reliability": {"ensemble": diagram, "members": [diagram, diagram]},
            "parts": parts,
        }
        subset = {"mean": 0.955, "min": 0.954, "max": 0.956, "standard_deviation": 0.001}
        about = {
            "name": name,
            "source": (sources or names)[i],
            "method": "edst",
            "model": "WideResNet(28, 10)",
            "tickets": 3,
        }
        rows.append(
            about
            | {
                "evaluation": found,
                "run": run,
                "subsets": {"sizes": [2], "accuracy": {"2": subset}},
            }
        )
    test = {"name": "cifar10", "examples": 10_000, "fingerprint": fingerprint}
    return {
        "command": "python experiments/evaluate.py runs/edst",
        "date": "2026-01-02",
        "versions": {},
        "test": test,
        "rows": rows,
    }
