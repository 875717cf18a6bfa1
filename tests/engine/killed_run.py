"""A run that others kill: `python killed_run.py FOLDER CACHE PLAN [WAIT]`; says "ready" before it begins."""

import sys
import time
import warnings

import jax

if __name__ == "__main__":
    folder, cache, kind, *wait = sys.argv[1:]
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    from tiny_task import dst, edst, fit

    warnings.simplefilter("error")
    plan = {
        "edst": lambda: edst(
            3, collect="best", validation=24
        ),  # four steps an epoch, sixteen in all
        "dst": lambda: dst(2, epochs=2),  # two groups of twelve steps
    }[kind]()
    print("ready", flush=True)
    fit(plan, out=folder, checkpoint_every=0)
    time.sleep(float(wait[0]) if wait else 0)
