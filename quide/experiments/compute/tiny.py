"""Computes what records of MLPerf Tiny's ResNet-8 hold; :mod:`quide.experiments.tiny` says what they are."""

from __future__ import annotations

from importlib import metadata

import numpy as np

from quide import _files, latency
from quide.data import datasets, sources
from quide.experiments.compute.images import scored
from quide.experiments.tiny import ADDRESS, DATASET, FILES, TinyCase

LIBRARY, AT_ONCE = "ai-edge-litert", 100
WAIT_S = 120  # at most, for a quiet machine


def files(case: TinyCase, batch: int, threads: int) -> dict:
    contents = {bits: _content(name) for bits, name in FILES.items()}
    test = datasets.load(DATASET, "test")
    pixels = test.images.permute(0, 2, 3, 1).numpy()
    networks = {bits: _Network(content, AT_ONCE, threads) for bits, content in contents.items()}
    labels = test.labels.numpy()
    hits = {bits: network.classes(pixels) == labels for bits, network in networks.items()}
    passes = {}
    for bits, content in contents.items():
        network = _Network(content, batch, threads)
        network.give(pixels[:batch])
        passes[bits] = network.interpreter.invoke
    timings = latency.measure_interleaved(passes, latency.WARMUP, latency.PASSES, progress=True, wait_s=WAIT_S)
    return scored(hits) | timings.to_dict() | {
        "images": len(test),
        "size": {bits: len(content) for bits, content in contents.items()},
        "libraries": {LIBRARY: metadata.version(LIBRARY)},
    }  # fmt: skip


def _content(name: str) -> bytes:
    if (file := sources.of_the_user(name)) is None:
        raise FileNotFoundError(f"{name} is not in QUIDE_DATA; take it from {ADDRESS}, and name its folder there")
    with _files.reading(file, f"take it again from {ADDRESS}"):
        return _files.content(file)


class _Network:
    """A file in LiteRT's interpreter, for so many images at once."""

    def __init__(self, content: bytes, batch: int, threads: int):
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"{LIBRARY} is missing; install quide[deploy]", name=LIBRARY) from error
        self.interpreter = Interpreter(model_content=content, num_threads=threads)
        (given,), (left,) = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        self.interpreter.resize_tensor_input(given["index"], [batch, *given["shape"][1:]])
        self.interpreter.allocate_tensors()
        self.batch, self.given, self.left = batch, given, left["index"]

    def give(self, pixels: np.ndarray) -> None:
        """Lay images ``(batch, h, w, c)``, uint8, at the input: as they are, or on its grid."""
        values, wanted = pixels.astype(np.float32), self.given["dtype"]
        if wanted != np.float32:
            step, zero_point = self.given["quantization"]
            limits = np.iinfo(wanted)
            values = np.clip(np.round(values / step) + zero_point, limits.min, limits.max)
        self.interpreter.set_tensor(self.given["index"], values.astype(wanted))

    def classes(self, pixels: np.ndarray) -> np.ndarray:
        """The class of each image ``(n, h, w, c)``; n is a multiple of the batch."""
        found = []
        for start in range(0, len(pixels), self.batch):
            self.give(pixels[start : start + self.batch])
            self.interpreter.invoke()
            found.append(self.interpreter.get_tensor(self.left).argmax(1))
        return np.concatenate(found)
