"""One of several hosts: `python hosts_run.py FOLDER CACHE DEVICES PROCESS PROCESSES PORT OUT WHAT`.

It trains on the pictures in FOLDER/train, into FOLDER/OUT, and prints how many it has read, every step that it takes, and the
error where there is one. WHAT is what is special about this host: "nothing"; "slow" steps; "preempted-SEED-SECONDS", slow as
well, sends itself SIGTERM at a random moment of so many seconds; "different" has another plan, key and pictures; "elsewhere" another folder; "invalid" a
key that cannot be.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp


def init(key, x):
    a, b = jax.random.split(key)
    first, second = jax.random.normal(a, (48, 16)), jax.random.normal(b, (16, 3))
    return {"w1": 0.1 * first, "b": jnp.zeros(16), "w2": 0.2 * second}, {}


def apply(params, model_state, x, train, key):
    hidden = jnp.tanh(x.reshape(len(x), 48) @ params["w1"] + params["b"])
    return hidden @ params["w2"], model_state


if __name__ == "__main__":
    folder, cache, devices, process, processes, port, out, what = sys.argv[1:]
    what, seed, seconds = [*what.split("-"), "", "0"][:3]
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", int(devices))
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_compilation_cache_dir", cache)
    if int(processes) > 1:
        jax.distributed.initialize(f"localhost:{port}", int(processes), int(process))
    import jaxtickets as jt
    from jaxtickets.engine import run_folder
    from jaxtickets.engine.events import Stepped
    from jaxtickets.engine.recorder import Recorder
    from jaxtickets.members import Layout, member_mesh

    where = Path(folder) / ("other" if what == "different" else "train")
    pictures = jt.data.image_train(where, size=4, workers=0)
    began = 0.0
    read, view, write = [], type(pictures).view, Recorder.write
    after = random.Random(seed).uniform(0, float(seconds))

    def counted(self, index, seed, epoch):
        read.append((index, seed, epoch))
        return view(self, index, seed, epoch)

    def told(self, group, index, state, event):
        global what, began
        began = began or time.monotonic()
        if isinstance(event, Stepped):
            print("step", index, event.done, flush=True)
            if what == "preempted" and time.monotonic() > began + after:
                os.kill(os.getpid(), signal.SIGTERM)
                what = "slow"
            time.sleep(0.25 * (what in ("slow", "preempted")))
        write(self, group, index, state, event)

    type(pictures).view, Recorder.write, run_folder._NETWORK = counted, told, 1.0
    sparsity = 0.6 if what == "different" else 0.5
    plan = jt.edst(2, sparsity=sparsity, explore=2, refine=2, update_every=3, batch_size=6)
    try:
        jt.fit(
            plan,
            jt.classification((init, apply), num_classes=3),
            pictures,
            key={"different": 1, "invalid": -1}.get(what, 0),
            out=Path(folder) / ("elsewhere" if what == "elsewhere" else out),
            layout=Layout(1, mesh=member_mesh(1, jax.devices())) if devices == "2" else None,
            checkpoint_every=1e9,
        )
    except (jt.RunError, ValueError) as error:
        print(type(error).__name__, error, flush=True)
    print("read", len(read), flush=True)
