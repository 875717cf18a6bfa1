"""Measure an accelerator: layouts of members, masks, selection, smaller networks, EDST.

    python experiments/benchmarks/accelerator.py --out gpu.json --data cifar-10-batches-bin
    python experiments/benchmarks/accelerator.py --out tiny.json --tiny  # a minute on a CPU

One call takes less than ten minutes (--minutes) and leaves what it finished in the JSON; the same
command again goes on from there, until it says that all is done. A row that failed says why and is
not measured again unless it is taken out of the JSON. It needs this package and its core
dependencies only. --data is a folder of the official binary files of CIFAR-10, or of mosaics of
images (train_*.png and train_labels.npy, test likewise; Pillow reads them); without it images are
random, which is as fast, and EDST learns nothing.
"""

from __future__ import annotations

import argparse
import datetime
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

import jax
from benchmarks import accelerator_rows as rows_of
from benchmarks.mosaics import Geometry, image_data
from rich.console import Console
from rich.table import Table

import jaxtickets as jt
from jaxtickets import engine

PARTS = ("peak", "layout", "masked", "shrunk", "selection", "edst")
# A row is not begun unless so many seconds are left: the largest networks take long to compile.
MARGIN = 90.0
# What a call leaves for writing and going home.
SPARE = 20.0


class TimeIsUp(BaseException):
    """The call's minutes are over. No row may take it for an error of its own."""


def flags(arguments: list[str] | None = None) -> argparse.Namespace:
    """The flags of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="the JSON, read and written")
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10")
    parser.add_argument(
        "--geometry", default="32x32x50", help="of mosaics: HEIGHTxWIDTHxCOLUMNS, in images"
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="that this call may take")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure")
    parser.add_argument(
        "--shorter", type=float, default=1.0, help="EDST: lengths are divided by this"
    )
    parser.add_argument("--run", type=Path, help="EDST's run folder; beside the JSON if not given")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to see that all works")
    found = parser.parse_args(arguments)
    if not 0 < found.minutes < 1e6 or not 1 <= found.shorter <= 1000:
        parser.error("--minutes is above 0, and --shorter 1 to 1000")
    return found


def hardware() -> dict[str, Any]:
    """What it is measured on, and with."""
    device = jax.devices()[0]
    return {
        "kind": device.device_kind,
        "count": jax.device_count(),
        "platform": device.platform,
        "driver": getattr(device.client, "platform_version", ""),
        "memory": (device.memory_stats() or {}).get("bytes_limit"),
        "versions": engine.versions(),
    }


def read(out: Path, now: dict[str, Any], sizes: dict[str, Any]) -> dict[str, Any]:
    """What earlier calls have measured here.

    Raises:
      SystemExit: it was measured on other hardware, with other versions or other sizes.
    """
    fresh = {"hardware": now, "sizes": sizes, "commands": [], "rows": {}}
    if not out.exists():
        try:  # found out now, and not when the first row is measured
            engine.write_json(out, fresh)
        except OSError as error:
            raise SystemExit(f"--out {out} cannot be written: {error.strerror}.") from None
        return fresh
    try:
        found = json.loads(out.read_bytes())
        # How much memory others leave is no difference.
        hardware = found["hardware"] | {"memory": now["memory"]}
        found["sizes"], found["rows"].keys(), found["commands"][0]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise SystemExit(f"--out {out} is there and is none of this script's files.") from None
    if (hardware, found["sizes"]) != (json.loads(json.dumps(now)), sizes):
        raise SystemExit(
            f"--out {out} was measured on other hardware, with other versions or with other flags;"
            " give another --out."
        )
    return found


def measure(row: Callable[[], dict[str, Any]], seconds: float) -> dict[str, Any]:
    """A row's numbers, or what went wrong with it; `TimeIsUp` after so many seconds."""

    def up(*_: Any) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, up)
    signal.setitimer(signal.ITIMER_REAL, max(0.5, seconds))
    try:
        return row()
    except Exception as error:  # one row that fails is a result, and no reason to lose the others
        first = (str(error).splitlines() or [""])[0]
        return {"error": f"{type(error).__name__}: {first[:300]}"}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main(arguments: list[str] | None = None) -> int:
    """Measure what is not measured yet, while there is time; returns how many rows are left."""
    began, asked = time.monotonic(), flags(arguments)
    console = Console(stderr=True)
    sizes = rows_of.TINY if asked.tiny else rows_of.FULL
    what = {
        "tiny": asked.tiny,
        "data": asked.data and asked.data.resolve().name,
        "shorter": asked.shorter,
    }
    found = read(asked.out, hardware(), what)
    words = [*(arguments or sys.argv[1:])]
    # Where files lie is this machine's affair.
    words = [Path(word).name if Path(word).is_absolute() else word for word in map(str, words)]
    shown = ["python", "experiments/benchmarks/accelerator.py", *words]
    today = datetime.date.today().isoformat()
    found["commands"].append({"command": " ".join(shown), "date": today})
    train, test = image_data(
        asked.data, Geometry.parse(asked.geometry), 1000 if asked.tiny else 50_000
    )
    if asked.tiny:
        train, test = train.take(slice(0, 256)), None if test is None else test.take(slice(0, 64))
    folder = asked.run or asked.out.with_suffix(".edst")
    todo = rows_of.rows(sizes, train)
    todo["edst"] = lambda: rows_of.edst(sizes, (train, test), asked.shorter, folder)
    todo = {name: row for name, row in todo.items() if name.split(",")[0].split()[0] in asked.only}
    margin = 0.0 if asked.tiny else MARGIN

    def left() -> float:
        return 60 * asked.minutes - (time.monotonic() - began) - SPARE

    begun = False
    for name, row in todo.items():
        if found["rows"].get(name, {}).get("done"):
            continue
        had = left()
        if had < margin and begun:
            break
        begun = True  # one row at least, so that calls come to an end
        console.print(f"{name} ...", highlight=False)
        try:
            found["rows"][name] = {**measure(row, had), "done": True}
        except TimeIsUp:
            if name == "edst":
                so_far = rows_of.edst_so_far(sizes, train, asked.shorter, folder)
                found["rows"][name] = {**so_far, "done": False}
            elif had > 30 * asked.minutes:  # more than half a call: another would not do either
                found["rows"][name] = {"error": "takes longer than a call", "done": True}
            break
        finally:
            engine.write_json(asked.out, found)
    missing = sum(not found["rows"].get(name, {}).get("done") for name in todo)
    show(found["rows"])
    again = "all is done." if not missing else "run the same command again to go on."
    print(f"{len(todo) - missing} of {len(todo)} rows in {asked.out}; {again}")
    return missing


def show(rows: dict[str, dict[str, Any]]) -> None:
    """One line for every row that has numbers; shares are of the measured matrix peak."""
    table = Table("row", "numbers", box=None)
    for name, row in rows.items():
        numbers = dict(row)
        peak = rows.get(f"peak, {name.split(', ')[2]}" if name.startswith("layout") else "", {})
        if "tflops" in peak and "tflops" in row:
            numbers["share_of_peak"] = row["tflops"] / peak["tflops"]
        numbers |= numbers.pop("seconds") if isinstance(row.get("seconds"), dict) else {}
        words = (
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in numbers.items()
            if key not in ("done", "plan", "n")
        )
        table.add_row(name, ", ".join(words))
    Console(width=200).print(table)


if __name__ == "__main__":
    try:
        main()
    except (OSError, jt.DataError, jt.RunError) as wrong:
        raise SystemExit(str(wrong)) from None
