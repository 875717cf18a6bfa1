"""The measurements of one source, written to a file as they come."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from support.evaluation_flags import Config
from support.sources import Source

import jaxtickets as jt
from jaxtickets import engine, evaluation, masks, report, tickets
from jaxtickets.data import ImageTest
from jaxtickets.errors import ReportError

NO_NETWORKS = "predictions are all that there is of it"


class Row:
    """The measurements of one source, kept in a file as they come."""

    def __init__(self, config: Config, source: Source, test: jt.Dataset | ImageTest) -> None:
        self.config, self.source, self.test = config, source, test
        self.left_out: dict[str, str] = {}
        identity = {
            "tickets": source.digest,
            "test": test.fingerprint(),
            "bins": config.bins,
            "combine": config.combine,
        }
        if source.code is not None:
            identity["code"] = source.code
        self._file = (
            config.out
            / "rows"
            / f"{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]}.json"
        )
        self._kept: dict[str, Any] = {}
        # damaged by a crash of the machine: measured anew
        with contextlib.suppress(OSError, ValueError):
            self._kept = json.loads(self._file.read_bytes())

    def measure(self, name: str, part: Any) -> None:
        """Measure one part of the suite, if it is not there yet for these settings."""
        settings = self._settings(name)
        if self._kept.get(name, {}).get("settings") == settings:
            return
        source, options = self.source, {"bins": self.config.bins, "combine": self.config.combine}
        if source.stored and name not in ("clean", "diversity"):
            self.left_out[name] = NO_NETWORKS
            return
        try:
            if name == "clean":
                result = evaluation.evaluate(
                    source.tickets, self.test, batch_size=self.config.batch_size, **options
                ).to_dict()
                result["subsets"] = self._subsets()
            else:
                result = part(
                    source.tickets, self.test, batch_size=self.config.batch_size, **options
                )
        except evaluation.EvaluationError as error:
            if name == "clean":
                raise ReportError(f"{source.path}: {error}") from None
            self.left_out[name] = str(error)
            return
        self._keep(name, {"settings": settings, "result": report.finite(result)})

    def lacks(self, corruption: str, severity: int, generated: bool) -> bool:
        """Whether a corrupted set has not been predicted, and can be."""
        if self.source.stored:
            self.left_out["corrupted"] = NO_NETWORKS
            return False
        return all(
            (row["corruption"], row["severity"]) != (corruption, severity)
            for row in self._sets(generated)
        )

    def corrupted(self, one: Any) -> None:
        """Measure one corrupted set more."""
        options: dict[str, Any] = {
            "bins": self.config.bins,
            "combine": self.config.combine,
            "batch_size": self.config.batch_size,
        }
        rows = evaluation.Corrupted([one]).rows(self.source.tickets, self.test, **options)
        result = {"generated": one.generated, "sets": [*self._sets(one.generated), *rows]}
        self._keep(
            "corrupted",
            {
                "settings": self._settings("corrupted", one.generated),
                "result": report.finite(result),
            },
        )

    def result(self) -> dict[str, Any]:
        """The source's row of evaluation.json."""
        source, clean = self.source, dict(self._kept["clean"]["result"])
        subsets = clean.pop("subsets")
        parts = {
            name: self._kept[name]["result"]
            for name in self.config.parts
            if name in self._kept and name not in self.left_out
        }
        if "corrupted" in parts:
            rows = [
                corrupted_set
                for corrupted_set in parts["corrupted"]["sets"]
                if self._asked(corrupted_set)
            ]
            mean = {
                score: float(np.mean([corrupted_set[score] for corrupted_set in rows]))
                for score in ("accuracy", "nll", "ece")
            }
            parts["corrupted"] = {
                "generated": parts["corrupted"]["generated"],
                "sets": rows,
                "mean": mean,
            }
        return {
            "name": source.name,
            "source": str(source.path),
            "method": source.method,
            "model": source.model,
            "tickets": len(source.tickets),
            "evaluation": clean | {"parts": parts},
            "run": None if source.part else source.run,
            "subsets": subsets,
            **self._part(),
        }

    def _part(self) -> dict[str, Any]:
        """What the row of a part of a run's tickets tells in place of the run."""
        source = self.source
        if not source.part or source.stored:
            return {}
        density = [masks.density(mask) for mask in source.tickets.masks]
        plan = None if source.run is None else source.run.get("plan")
        return {"part": True, "density": float(np.mean(density)), "plan": plan}

    def _asked(self, corrupted_set: Mapping[str, Any]) -> bool:
        return corrupted_set["severity"] in self.config.severities and (
            not self.config.corruptions or corrupted_set["corruption"] in self.config.corruptions
        )

    def _sets(self, generated: bool) -> list[dict[str, Any]]:
        entry = self._kept.get("corrupted", {})
        return (
            entry["result"]["sets"]
            if entry.get("settings") == self._settings("corrupted", generated)
            else []
        )

    def _settings(self, name: str, generated: bool = False) -> list[Any]:
        """The settings that the result of a part hangs on, beside the tickets and the test set."""
        config = self.config
        settings: Mapping[str, list[Any]] = {
            "corrupted": [generated, config.seed],
            "shifted": [str(folder.absolute()) for folder in config.shifted],
            "ood": [config.ood, config.noise, config.seed],
            "adversarial": [config.attack, config.step, config.steps, config.radius],
            "landscape": [config.recalibrate, *self._plane()],
        }
        return json.loads(json.dumps(settings.get(name, [])))

    def _plane(self) -> list[Any]:
        config = self.config
        parent = config.parent and tickets.about(config.parent)["sha256"]
        return [config.plane, parent] if config.plane or config.parent else []

    def _subsets(self) -> dict[str, Any] | None:
        """Accuracy of all ensembles of 1 to all members.

        Of many members: to the largest sizes that can be gone through.
        """
        members = self.source.tickets.member_log_proba(self.test, batch_size=self.config.batch_size)
        if len(members) < 2:
            return None
        sizes = range(
            1, (len(members) if len(members) <= 12 else 5 if len(members) <= 20 else 2) + 1
        )
        scores_by_size = evaluation.subset_scores(
            np.exp(members), self.test.y, tuple(sizes), "accuracy"
        )
        statistics = {"mean": np.mean, "min": np.min, "max": np.max, "standard_deviation": np.std}
        return {
            "sizes": list(sizes),
            "accuracy": {
                str(size): {
                    name: float(statistic(values)) for name, statistic in statistics.items()
                }
                for size, values in scores_by_size.items()
            },
        }

    def _keep(self, name: str, entry: dict[str, Any]) -> None:
        self._kept[name] = entry
        engine.write_json(self._file, self._kept)
