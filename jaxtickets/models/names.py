"""Makes a network from its name in run folders and ticket files."""

from __future__ import annotations

import ast
from typing import Any

from flax import linen

from jaxtickets.models.batch_ensemble import BatchEnsemble
from jaxtickets.models.densenet import DenseNet
from jaxtickets.models.lenet import LeNet
from jaxtickets.models.mc_dropout import MCDropout
from jaxtickets.models.mimo import MIMO
from jaxtickets.models.resnet import ResNet
from jaxtickets.models.tree_net import TreeNet
from jaxtickets.models.wide_resnet import WideResNet

NETWORKS = {
    kind.__name__: kind
    for kind in (LeNet, WideResNet, ResNet, DenseNet, TreeNet, BatchEnsemble, MIMO, MCDropout)
}


def network(name: str) -> linen.Module:
    """The image network that `classification` calls `name`; the inverse of that naming.

    Nothing is executed.

    Args:
      name: such as "WideResNet(28, 10)" or "TreeNet(LeNet(M), 3)": the class and its arguments,
        words without quotes.

    Returns:
      the network, for `classification`.

    Raises:
      ValueError: a name of another form, of a network that is not of this package, or with
        arguments that it refuses.

    >>> network("WideResNet(28, 10)") == WideResNet(28, 10)
    True
    >>> network("LeNet(L, initial=torch)").initial
    'torch'
    """
    if not isinstance(name, str):
        raise ValueError(f"name must be a text, such as 'WideResNet(28, 10)', got {name!r:.80}.")
    try:
        module = _build(ast.parse(name.strip(), mode="eval").body)
        if not isinstance(module, linen.Module):
            raise ValueError("no class with its arguments")
        return module
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError) as error:
        shown = name if len(name) <= 80 else name[:77] + "..."
        raise ValueError(
            f"{shown!r} names no network of this package ({error}). A name is like 'WideResNet(28,"
            f" 10)', of {', '.join(NETWORKS)}."
        ) from None


def _build(node: ast.expr) -> Any:
    """The value of a node of the name's syntax tree: a network, a number, a word, or several."""
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id not in NETWORKS:
            raise ValueError(f"{ast.unparse(node.func)} is not one")
        options = {str(keyword.arg): _build(keyword.value) for keyword in node.keywords}
        return NETWORKS[node.func.id](*map(_build, node.args), **options)
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(map(_build, node.elts))
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | bool | None):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_build(node.operand)
    raise ValueError(f"{ast.unparse(node)} is not an argument")
