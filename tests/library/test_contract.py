"""The names of the public interface, the order of their arguments and their defaults: changing one breaks a user."""

from __future__ import annotations

import inspect
from dataclasses import asdict
from importlib import import_module

import pytest

import quide

CONTRACT = {
    "intelligence_index": "compression, accuracy, latency_ms",
    "gated_index": "compression, accuracy, latency_ms, threshold",
    "accuracy_threshold": "full_precision_accuracy, tolerance, num_classes",
    "compression_ratio": "bits, num_weights=None",
    "accuracy_compression_product": "compression, accuracy",
    "accuracy_per_log_latency": "accuracy, latency_ms",
    "quantize": "model, bits, calibration, scheme=PAPER, techniques=(), *",
    "qat": "model, train, bits, scheme=BEST, epochs=1, *",
    "measure_latency": "fn, warmup=100, passes=1000, *",
    "sweep": "model, images, labels, calibration, bits=(32, 16, 8, 4, 2), *",
    "search.genetic": (
        "fitness, num_layers, choices=(16, 8, 4, 2), population=20, generations=30, mutation=0.15, elite=5, seed=0, *"
    ),
    "evaluate.exhaustive": "model, images, labels, calibration, choices=(16, 8, 4, 2), scheme=PAPER, *",
    "sensitivity": "model, images, labels, calibration, bits=4, *",
    "diagnose": "model, images, labels, calibration, bits=4, *",
    "Width": "weights=32, activations=32",
    "save": "quantized, file",
    "export_onnx": "quantized, example_input, file",
    "load": "model, file",
}
PAPER = {
    "weight_range": "minmax", "weight_per_channel": False, "weight_levels": "restricted", "activation_site": "output",
    "activation_range": "minmax", "activation_symmetric": False, "rounding": "half_even", "quantize_logits": True,
    "percentile": 99.9, "fold_batch_norm": True, "sixteen_bit": "grid",
}  # fmt: skip


def found(name):
    owner, _, function = f"quide.{name}".rpartition(".")
    return getattr(import_module(owner), function)


def written(name):
    """Arguments and defaults as in :data:`CONTRACT`; those by keyword alone, which may grow, are a star."""
    parts = []
    for one in inspect.signature(found(name)).parameters.values():
        if one.kind is one.KEYWORD_ONLY:
            return ", ".join([*parts, "*"])
        schemes = {id(quide.PAPER): "PAPER", id(quide.BEST): "BEST"}
        default = schemes.get(id(one.default), repr(one.default))
        parts.append(one.name if one.default is one.empty else f"{one.name}={default}")
    return ", ".join(parts)


@pytest.mark.parametrize("name", CONTRACT)
def test_arguments_and_defaults(name):
    assert written(name) == CONTRACT[name]


def test_what_may_follow_by_keyword_has_a_default():
    for name in CONTRACT:
        later = [one for one in inspect.signature(found(name)).parameters.values() if one.kind is one.KEYWORD_ONLY]
        assert all(one.default is not one.empty for one in later), name


def test_the_papers_scheme():
    assert isinstance(quide.PAPER, quide.Scheme) and quide.PAPER == quide.Scheme()
    assert {name: asdict(quide.PAPER)[name] for name in PAPER} == PAPER


def test_every_name_of_the_package_is_there():
    assert {name.split(".")[0] for name in CONTRACT} | {"PAPER", "Scheme"} <= set(quide.__all__)
    for name in quide.__all__:
        assert getattr(quide, name) is not None
