"""A linear layer whose weights alone are stored at 8, 4 or 2 bits, by ONNX Runtime's MatMulNBits (extra ``deploy``).

Its kernels read the narrow weights, and multiply them by activations that they round to 8 bits.
"""

from __future__ import annotations

import logging

import numpy as np

from quide.deploy.onnx import OnnxNetwork, require

BITS = (8, 4, 2)
BLOCK = 32  # weights that share a scale
INT8 = 4  # accuracy_level: rounds activations to 8 bits; without it 8 and 2 bits are many times slower than float32


def linear(weight: np.ndarray, bits: int | None = None) -> tuple[OnnxNetwork, int]:
    """A layer without bias that takes ``(n, in)`` and returns ``(n, out)``, and its bytes on disk.

    Args:
        weight: float32 ``(in, out)``.
        bits: one of :data:`BITS`; None leaves the weights as they are.

    Raises:
        ModuleNotFoundError: the extra ``deploy`` is not installed.
    """
    require()
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    shapes = [(name, ["n", size]) for name, size in zip(("images", "logits"), weight.shape, strict=True)]
    given, left = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes)
    product = onnx.helper.make_node("MatMul", ["images", "weight"], ["logits"])
    held = onnx.numpy_helper.from_array(weight, "weight")
    graph = onnx.helper.make_graph([product], "linear", [given], [left], [held])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    if bits is not None:
        logging.getLogger(MatMulNBitsQuantizer.__module__).setLevel(logging.WARNING)  # it tells each step
        quantizer = MatMulNBitsQuantizer(model, bits, BLOCK, is_symmetric=True, accuracy_level=INT8)
        quantizer.process()
        model = quantizer.model.model
    packed = model.SerializeToString()
    return OnnxNetwork(packed), len(packed)
