"""QuIDE: the Intelligence Index of quantized networks, and everything to reproduce arXiv 2605.10959.

Names are imported on first use, so that the metric needs no torch.
"""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "intelligence_index": "metric",
    "gated_index": "metric",
    "accuracy_threshold": "metric",
    "compression_ratio": "metric",
    "accuracy_compression_product": "metric",
    "accuracy_per_log_latency": "metric",
    "load": "ptq.save",
    "export_onnx": "deploy.qdq",
    "diagnose": "diagnosis",
    "quantize": "ptq.prepared",
    "qat": "ptq.lsq",
    "sensitivity": "diagnosis",
    "save": "ptq.save",
    "Scheme": "ptq.scheme",
    "PAPER": "ptq.scheme",
    "BEST": "ptq.scheme",
    "Width": "ptq.width",
    "measure_latency": "latency",
    "sweep": "evaluate",
    "arithmetic_intensity": "intensity",
}
_MODULES = ("evaluate", "latency", "metric", "models", "ptq", "search", "stats")
# Where modules stood before the package had rooms; these names leave with the next release.
_MOVED = {
    "datasets": "data.datasets",
    "paper": "experiments.paper",
    "probe": "cli.probe",
    "records": "experiments.records",
    "train": "models.train",
}
__all__ = [*_HOME, *_MODULES, *_MOVED]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(f"quide.{_HOME[name]}"), name)
    if name in _MODULES or name in _MOVED:
        return import_module(f"quide.{_MOVED.get(name, name)}")
    raise AttributeError(f"module 'quide' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
