"""A run that others preempt: `python preempted_run.py FOLDER CACHE [once|twice]`.

Says "ready" when it begins, and every step that it has taken; there are 40, of a tenth of a second at least. EDST on digits, whose channels are removed and cut out.
With "once" or "twice" it sends itself SIGTERM so many times in its third step.
"""

import os
import signal
import sys
import time

import jax
import jax.numpy as jnp


def init(key, x):
    a, b = jax.random.split(key)
    first, second = jax.random.normal(a, (64, 32)), jax.random.normal(b, (32, 10))
    return {"w1": 0.1 * first, "b": jnp.zeros(32), "w2": 0.1 * second}, {}


def apply(params, model_state, x, train, key):
    hidden = jnp.tanh(x.reshape(len(x), 64) @ params["w1"] + params["b"])
    return hidden @ params["w2"], model_state


if __name__ == "__main__":
    folder, cache, *itself = sys.argv[1:]
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    import jaxtickets as jt
    from jaxtickets.engine.events import Stepped
    from jaxtickets.engine.recorder import Recorder

    ready = False
    real, left = Recorder.write, iter((2, 1, 0))

    def write(self, group, index, state, event):
        global ready
        if not ready:
            ready = not print("ready", flush=True)
        if isinstance(event, Stepped):
            print(group.number, index, event.done, flush=True)
            time.sleep(0.1)
            if itself and next(left, -1) == 0:
                for _ in range({"once": 1, "twice": 2}[itself[0]]):
                    os.kill(os.getpid(), signal.SIGTERM)
        real(self, group, index, state, event)

    Recorder.write = write
    train, _ = jt.data.pair("digits")
    task = jt.classification((init, apply), num_classes=10)
    plan = jt.edst(2, sparsity=0.5, channels=0.4, explore=2, refine=1, update_every=8)
    jt.fit(plan, task, train, key=0, out=folder or None, checkpoint_every=1e9)
