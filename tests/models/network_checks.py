"""Checks that several networks pass: the same one in PyTorch, dropout, channels cut away; weights and counts for them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from others import others

from jaxtickets.models import classification, layers
from jaxtickets.tracing.flops import forward_flops

# Compiling takes longer than running here, and the order of float32 sums is not what is tested: 1.5 s instead of 8 for a ResNet.
FAST_TO_COMPILE = {"xla_backend_optimization_level": 0}


def shapes(model, image):
    return jax.eval_shape(
        lambda k: model.init(k, jnp.zeros((1, *image)), train=False), jax.random.key(0)
    )["params"]


def weights(task, x):
    """Random weights without compiling their generators, which takes longer than the networks do."""
    draw = np.random.default_rng(0)
    params, state = jax.eval_shape(task.init, jax.random.key(0), x)
    params = jax.tree.map(
        lambda a: jnp.asarray(
            draw.normal(size=a.shape) / np.sqrt(max(a.size / a.shape[-1], 1)), a.dtype
        ),
        params,
    )
    return params, jax.tree.map(lambda a: jnp.asarray(np.ones(a.shape, a.dtype)), state)


def count(tree, only=""):
    return sum(
        leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if only in jax.tree_util.keystr(path)
    )


def from_torch(named, statistics=False):
    """Our tree out of torch's names: OIHW to HWIO, [out, in] to [in, out]; norms have `scale`, `mean` and `var`."""
    tree = {}
    for name, value in named:
        *path, leaf = name.split(".")
        value = value.detach().numpy().copy()
        if statistics:
            if leaf not in ("running_mean", "running_var"):
                continue
            leaf = leaf.removeprefix("running_")
        elif leaf == "weight":
            leaf = {1: "scale", 2: "kernel", 4: "kernel"}[value.ndim]
            value = value.transpose({1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}[value.ndim])
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = jnp.asarray(value)
    return tree


def compare(net, model, image, batch=6):
    """Loss, gradients, statistics and outputs in both modes of `model` are those of the torch module, whose weights it is given."""
    torch = others("torch")

    for parameter in net.parameters():  # norms at 1 and 0 would hide a mistake
        if parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    task = classification(model, label_smoothing=0.1)
    x = np.random.default_rng(0).normal(size=(batch, *image)).astype(np.float32)
    y = np.arange(batch)
    params, state = (
        from_torch(net.named_parameters()),
        from_torch(net.named_buffers(), statistics=True),
    )
    model_state = {"batch_stats": state} if state else {}
    expected = jax.eval_shape(task.init, jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, (params, model_state)) == jax.tree.map(
        lambda a: a.shape, expected
    )

    @functools.partial(jax.jit, compiler_options=FAST_TO_COMPILE)
    def step(params, model_state):
        def loss(params):
            outputs, new = task.apply(params, model_state, x, True, None)
            return jnp.mean(task.loss(outputs, jnp.asarray(y))), (outputs, new)

        (value, (outputs, new)), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return value, outputs, new, grads, task.apply(params, new, x, False, None)[0]

    value, outputs, new, grads, evaluated = step(params, model_state)
    images = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    theirs = net(images)
    loss = torch.nn.functional.cross_entropy(theirs, torch.from_numpy(y), label_smoothing=0.1)
    loss.backward()
    # float32 through at most thirty layers: each rounds to 6e-8 of its largest term, batch norms of few pixels amplify.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    close(outputs, theirs.detach().numpy())
    np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
    wanted = from_torch((n, p.grad) for n, p in net.named_parameters())
    jax.tree.map(close, grads, wanted)
    if state:
        after = from_torch(net.named_buffers(), statistics=True)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            new["batch_stats"],
            after,
        )
    net.eval()
    with torch.no_grad():
        close(evaluated, net(images).numpy())


def flops(model, image):
    """Forward FLOPs of one image, and the shapes of the params; nothing is computed."""
    task = classification(model)
    x = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    params, state = jax.eval_shape(task.init, jax.random.key(0), x)
    state = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), state)
    return forward_flops(lambda p, x: task.apply(p, state, x, False)[0], params, x, batch=1), params


def kernels(model, image):
    """The kernels that a model starts with, by path."""

    @functools.partial(jax.jit, compiler_options=FAST_TO_COMPILE)
    def init(key):
        params = model.init(key, jnp.zeros((1, *image)), train=False)["params"]
        leaves = {_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
        return {path: leaf for path, leaf in leaves.items() if path.endswith("kernel")}

    return jax.device_get(init(jax.random.key(0)))


def _path(path):
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _at(tree, path):
    return functools.reduce(lambda node, entry: node[entry.key], path, tree)


def watched(run, *args):
    """The layers that `run(*args)` calls, in order: (kind, input, output)."""
    calls = []

    def watch(call, args, kwargs, context):
        out = call(*args, **kwargs)
        if context.method_name == "__call__" and isinstance(
            context.module, nn.Dropout | layers.Conv | layers.BatchNorm | layers.Dense
        ):
            calls.append((type(context.module).__name__, args[0], out))
        return out

    with nn.intercept_methods(watch):
        run(*args)
    return calls


def traced_layers(model, image, train=False):
    """The layers that a network calls, in order, nothing computed: (kind, dtype of the output)."""
    calls = []

    def init(key, x):
        calls.extend(
            (kind, out.dtype)
            for kind, _, out in watched(model.init, {"params": key, "dropout": key}, x, train)
        )

    jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct((2, *image), jnp.float32))
    return calls


def check_dropout(model, image, order):
    """Layers come in this order; every dropout drops its share in training; evaluation is the program without dropout."""
    x = np.random.default_rng(0).normal(size=(4, *image)).astype(np.float32)
    task = classification(model)
    params, state = weights(task, x)
    kinds = []

    @functools.partial(jax.jit, compiler_options=FAST_TO_COMPILE)
    def train(params, state, key):
        calls = watched(task.apply, params, state, x, True, key)
        kinds[:] = [kind for kind, _, _ in calls]
        return [(before, after) for kind, before, after in calls if kind == "Dropout"]

    drops = jax.device_get(train(params, state, jax.random.key(1)))
    assert kinds == order
    for before, after in drops:
        alive = before != 0
        kept = after[alive] != 0
        np.testing.assert_allclose(
            after[after != 0], before[after != 0] / (1 - model.dropout), rtol=1e-4, atol=1e-6
        )  # computed twice
        # A false alarm at 5 standard errors: 6e-7 a place.
        error = np.sqrt(model.dropout * (1 - model.dropout) / kept.size)
        np.testing.assert_allclose(np.mean(kept), 1 - model.dropout, atol=5 * error)
    plain = classification(model.copy(dropout=0.0))
    programs = [
        str(
            jax.make_jaxpr(lambda p, s, t=t: t.apply(p, s, x, False, jax.random.key(1)))(
                params, state
            )
        )
        for t in (task, plain)
    ]
    assert programs[0] == programs[1]


def check_shrunk(model, image, channels, made, read):
    """Without the `channels` that layers in `made` put out and those in `read` take in, outputs are as with zeros there."""
    x = np.random.default_rng(0).normal(size=(4, *image)).astype(np.float32)
    task = classification(model)
    params, state = weights(task, x)

    def cut(tree, change):
        def leaf(path, value):
            layer = _path(path[:-1]).removeprefix("batch_stats/")
            axes = [
                axis
                for axis, names in ((-1, made), (-2, read))
                if layer in names and -axis <= value.ndim
            ]
            return functools.reduce(change, axes, np.array(value))

        return jax.tree_util.tree_map_with_path(leaf, tree)

    def remove(value, axis):
        return np.delete(value, channels, axis)

    def clear(value, axis):
        np.moveaxis(value, axis, 0)[channels] = 0
        return value

    @functools.partial(jax.jit, compiler_options=FAST_TO_COMPILE)
    def run(params, state):
        outputs, new = task.apply(params, state, x, True)
        return outputs, task.apply(params, new, x, False)[0], new

    small, cleared = ((cut(params, change), cut(state, change)) for change in (remove, clear))
    smaller = {
        _path(path[:-1])
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if leaf.shape != _at(small[0], path).shape
    }
    assert smaller == {*made, *read}
    ours, wanted = run(*small), run(*cleared)
    close = functools.partial(
        np.testing.assert_allclose, rtol=1e-4, atol=1e-4
    )  # sums of fewer terms, in another order
    jax.tree.map(close, ours, (*wanted[:2], cut(wanted[2], remove)))
    assert not np.allclose(ours[1], run(params, state)[1], atol=1e-2)
