"""Peak memory of a piece of Python, measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys

_MEASURE = """
def _peak():
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    except OSError:
        import resource, sys
        unit = 2**20 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
print("peak", _peak())
"""


def peak_megabytes(code: str, *args: str) -> float:
    """Largest resident memory of a process that does nothing else than `code`, in megabytes.

    Linux keeps it for the address space that the process got when it started Python (`VmHWM`). What
    `getrusage` tells there may not be less than what the process that started it had, which a
    benchmark that measured something else before makes large.

    Args:
      code: Python.
      args: its `sys.argv[1:]`.
    """
    process = subprocess.run(
        [sys.executable, "-c", code + _MEASURE, *args], check=True, capture_output=True, text=True
    )
    return float(process.stdout.split()[-1])
