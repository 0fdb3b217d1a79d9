"""Which layers of a network are quantized, and the parts of a network that they make up."""

from __future__ import annotations

from torch import fx, nn


def is_quantizable(part: nn.Module | None) -> bool:
    """Whether a module is a layer to quantize: a 2-D convolution or a linear layer."""
    return isinstance(part, (nn.Conv2d, nn.Linear))


def module_of(model: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The module that a node calls; None where it calls none."""
    return model.get_submodule(node.target) if node.op == "call_module" else None


def quantizable_layers(model: nn.Module) -> list[str]:
    """Names of the conv and linear layers, in the order the model registers them (§3.3: all of them are quantized).

    A network may not run them all in evaluation; those are left out (``layers`` of :class:`quide.ptq.Prepared`).
    """
    return [name for name, layer in model.named_modules() if is_quantizable(layer)]


def stages(model: nn.Module) -> dict[str, list[str]]:
    """The quantizable layers by the part of the model they are in, to be given one width each: the stem, the four
    stages and the linear layer of a ResNet. The values are what :func:`quide.evaluate.exhaustive` takes as ``groups``.

    The paper's mixed topology of ResNet-18 has six entries and does not name them (Table 2); these are six parts.
    """
    found: dict[str, list[str]] = {}
    for layer in quantizable_layers(model):
        found.setdefault(layer.partition(".")[0], []).append(layer)
    return found
