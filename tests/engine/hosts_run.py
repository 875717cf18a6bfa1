"""One of several hosts: `python hosts_run.py FOLDER CACHE DEVICES PROCESS PROCESSES PORT WHAT...`.

WHAT is what this host does: "pictures" trains on the pictures in FOLDER/train, as do "preempted", which sends itself SIGTERM
in its third step, "sparser", "otherwise" and "elsewhere", which have another plan, key or folder than the others, "broken",
whose pictures cannot be read, and "slowly", whose steps take a second. Prints the pictures that it has read.
"""

import os
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
    folder, cache, devices, process, processes, port, what = sys.argv[1:]
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", int(devices))
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_compilation_cache_dir", cache)
    if int(processes) > 1:
        jax.distributed.initialize(f"localhost:{port}", int(processes), int(process))
    import jaxtickets as jt
    from jaxtickets.engine.events import Stepped
    from jaxtickets.engine.recorder import Recorder
    from jaxtickets.members import Layout, member_mesh

    pictures = jt.data.image_train(
        Path(folder) / ("other" if what == "broken" else "train"), size=4, workers=0
    )
    kind, read, real, left = type(pictures), [], Recorder.write, iter((2, 1, 0))
    view = kind.view

    def counted(self, index, seed, epoch):
        read.append((index, seed, epoch))
        return view(self, index, seed, epoch)

    def write(self, group, index, state, event):
        if isinstance(event, Stepped):
            print("step", index, event.done, flush=True)
            time.sleep(what == "slowly")
            if what == "preempted" and next(left, -1) == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3 * (what == "preempted" or processes == "2" and "cut" in folder))
        real(self, group, index, state, event)

    kind.view, Recorder.write = counted, write
    plan = jt.edst(
        2,
        sparsity=0.6 if what == "sparser" else 0.5,
        explore=2,
        refine=2,
        update_every=3,
        batch_size=6,
    )
    layout = Layout(1, mesh=member_mesh(1, jax.devices())) if int(processes) == 1 else None
    out = Path(folder) / ("elsewhere" if what == "elsewhere" else f"out-{processes}-{devices}")
    tickets = jt.fit(
        plan,
        jt.classification((init, apply), num_classes=3),
        pictures,
        key=int(what == "otherwise"),
        out=out,
        layout=layout,
    )
    print("read", len(read), len(set(read)), flush=True)
