"""Versions of what determines a run."""

from __future__ import annotations

import importlib.metadata
import platform

import jax

PACKAGES = ("jaxtickets", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and the packages that determine a run, and the backend it ran on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    found["backend"] = (
        f"{jax.default_backend()}: {jax.device_count()} x {jax.devices()[0].device_kind}"
    )
    return found
