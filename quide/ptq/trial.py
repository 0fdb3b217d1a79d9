"""One run of a traced network on a few images: what a graph alone does not tell about it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import fx
from torch.utils._python_dispatch import TorchDispatchMode

IMAGES = 2
_PRODUCTS = re.compile(r"mm|mv|matmul|linear|conv|einsum|dot|inner|kron|embedding|lstm|gru|rnn|attention|encoder_layer")


@dataclass(frozen=True)
class Trial:
    """What each node of a network did, by the name of the node.

    Attributes:
        outputs: what the network returned.
        ranks: number of dimensions of the tensors.
        places: where a tensor lies: its storage, and how it looks at it.
        overwritten: the nodes whose tensors a node changed in place.
        products: nodes that ran a product of matrices, a convolution, a table look-up or a recurrence.
    """

    outputs: object
    ranks: dict[str, int]
    places: dict[str, tuple]
    overwritten: dict[str, list[fx.Node]]
    products: set[str]


@torch.no_grad()  # not inference mode, in which tensors do not count their changes
def run(model: fx.GraphModule, images: torch.Tensor) -> Trial:
    """Run the network on the first images, of which it gets a copy."""
    runner = _Runner(model)
    outputs = runner.run(images[:IMAGES].detach().clone())
    tensors = {node.name: value for node, value in runner.env.items() if isinstance(value, torch.Tensor)}
    places = {
        name: (value.untyped_storage().data_ptr(), value.storage_offset(), tuple(value.shape), value.stride())
        for name, value in tensors.items()
    }
    ranks = {name: value.ndim for name, value in tensors.items()}
    return Trial(outputs, ranks, places, runner.overwritten, runner.products)


class Quiet(fx.Interpreter):
    """Runs a network node by node, and leaves errors as they are: fx would add lines to each."""

    def __init__(self, model: fx.GraphModule, keep_all: bool = False):
        super().__init__(model, garbage_collect_values=not keep_all)
        self.extra_traceback = False


class Watcher(Quiet):
    """Runs a network and shows the values of nodes, by their names, to those who are to see them."""

    def __init__(self, model: fx.GraphModule, seeing: Mapping[str, Sequence[Callable]]):
        super().__init__(model)
        self.seeing = seeing

    def run_node(self, node: fx.Node):
        value = super().run_node(node)
        for see in self.seeing.get(node.name, ()):
            see(value)
        return value


class _Runner(Quiet):
    def __init__(self, model: fx.GraphModule):
        super().__init__(model, keep_all=True)  # kept, so that no storage is used twice
        self.overwritten: dict[str, list[fx.Node]] = {}
        self.products: set[str] = set()

    def run_node(self, node: fx.Node):
        given = {source: self.env[source] for source in node.all_input_nodes}
        tensors = {source: value for source, value in given.items() if isinstance(value, torch.Tensor)}
        before = {source: value._version for source, value in tensors.items() if not value.is_inference()}
        with _Operations() as operations:
            value = super().run_node(node)
        if changed := [source for source, version in before.items() if given[source]._version != version]:
            self.overwritten[node.name] = changed
        if any(_PRODUCTS.search(name) and "upsample" not in name for name in operations.names):
            self.products.add(node.name)
        return value


class _Operations(TorchDispatchMode):
    """Names of the operations that torch itself is asked for."""

    def __init__(self):
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function, types, args: Iterable = (), kwargs: dict | None = None):
        self.names.add(function._schema.name.rpartition("::")[2])
        return function(*args, **(kwargs or {}))
