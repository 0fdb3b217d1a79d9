"""A network of the user's: read from files, scored at a few widths (§5, Guideline 2), and what to make of it."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import json
import pickle
import sys
import textwrap
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from quide import evaluate, latency, metric, stats
from quide.evaluate import inputs, knees
from quide.experiments import provenance
from quide.ptq.scheme import FULL_PRECISION, HALF_PRECISION
from quide.stats import Hits

WIDTHS = (8, 4)  # the two points of the paper's probe
PASSES = 100  # timed passes; a tenth of the paper's, as a probe is to be quick
WARMUP_SHARE = 10  # one untimed pass for so many timed ones, as in §3.3
WITH_KERNELS = (FULL_PRECISION, HALF_PRECISION, 8)  # widths that common processors compute in
SURE = 0.95  # share of resampled test sets from which on the images settle it
CALIBRATION_SIZE = 512  # §3.3

ARRAYS = ("images", "labels", "calibration")
FORMATS = (".csv", ".json")
_UNREADABLE = (ValueError, OSError, EOFError, zipfile.BadZipFile, SafetensorError)
_NAMING = "name a function without arguments, as package.module:function or folder/file.py:function"
_STORING = f"it must hold {', '.join(ARRAYS[:-1])} and {ARRAYS[-1]}"
_SAVING = "save the weights alone: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"


# --- the user's files ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Data:
    """``images`` float32 ``(n, ...)`` as the network takes them, ``labels`` int64 ``(n,)``, and ``calibration`` images
    from the training data, of the same shape."""

    images: torch.Tensor
    labels: torch.Tensor
    calibration: torch.Tensor

    def to(self, device: str | torch.device) -> Data:
        """The same on another device."""
        return Data(*(getattr(self, name).to(device) for name in ARRAYS))


def read_network(name: str, weights: str | Path | None = None) -> nn.Module:
    """The network that a function of the user's builds, in evaluation mode.

    Importing the function runs the user's own code; reading the weights runs none.

    Args:
        name: ``package.module:function``, looked for in the working folder too, or ``folder/file.py:function``.
        weights: a ``.safetensors`` file, or a ``.pt`` or ``.pth`` file that holds nothing but weights. Without it the
            function has to return a network that is trained.

    Raises:
        ValueError: there is no such function, it fails or returns something else, or the weights are not the network's.
    """
    source, _, function = name.rpartition(":")
    if not source or not function.isidentifier():
        raise ValueError(f"model must be a function, got {name!r}; {_NAMING}")
    try:
        model = getattr(_module(source), function)()
    except Exception as error:  # the user's own code, which can fail in any way
        raise ValueError(f"model {name} cannot be built ({_brief(error)}); {_NAMING}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"model {name} returned {type(model).__name__}, not a torch.nn.Module; {_NAMING}")
    if weights is not None:
        _fill(model, Path(weights))
    return model.float().eval()


def read_data(path: str | Path) -> Data:
    """Test images, labels and calibration images of those names: a ``.npz`` or ``.safetensors`` file, or a folder of
    three ``.npy`` files.

    Raises:
        FileNotFoundError: it, or one of the three, does not exist.
        ValueError: it does not parse, or an array is missing, of the wrong type or shape.
    """
    arrays = _arrays(Path(path))
    if missing := [name for name in ARRAYS if name not in arrays]:
        raise ValueError(f"{path} has no array {missing[0]!r}; {_STORING}")
    tensors = {name: _tensor(path, name, arrays[name]) for name in ARRAYS}
    for name in ("images", "calibration"):
        if not tensors[name].is_floating_point():
            raise ValueError(
                f"{name} of {path} are {tensors[name].dtype}; store them as the network takes them, normalized float32"
            )
        tensors[name] = tensors[name].float()
    images, labels, calibration = tensors.values()
    if labels.is_floating_point() or labels.ndim != 1:
        raise ValueError(f"labels of {path} must be whole numbers (n,), the class of each image")
    if images.shape[1:] != calibration.shape[1:]:
        shapes = f"{tuple(images.shape)} and {tuple(calibration.shape)}"
        raise ValueError(f"images and calibration of {path} differ in shape: {shapes}; both are what the network takes")
    return Data(images, labels.long(), calibration)


def _module(source: str) -> ModuleType:
    """The module of that name or file, with its folder on the search path as ``python`` itself would have it."""
    file = Path(source)
    if file.suffix != ".py":
        sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(source)
    sys.path.insert(0, str(file.resolve().parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(file.stem, module)  # for what looks itself up there, such as dataclasses
    spec.loader.exec_module(module)
    return module


def _fill(model: nn.Module, file: Path) -> None:
    weights = _weights(file)
    try:
        model.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{file} does not fit the network {type(model).__name__} ({_brief(error)})") from error


def _weights(file: Path) -> Mapping[str, torch.Tensor]:
    if file.suffix not in (".safetensors", ".pt", ".pth"):
        raise ValueError(f"weights must be a .safetensors, .pt or .pth file, got {file}")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        held = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except pickle.UnpicklingError as error:
        raise ValueError(f"{file} holds more than weights, and to load it would run code from it; {_SAVING}") from error
    except (*_UNREADABLE, RuntimeError) as error:
        raise ValueError(f"{file} cannot be read ({_brief(error)}); {_SAVING}") from error
    return held["state_dict"] if isinstance(held, Mapping) and "state_dict" in held else held


def _arrays(path: Path) -> Mapping[str, Any]:
    try:
        if path.is_dir():
            return {name: np.load(path / f"{name}.npy", allow_pickle=False) for name in ARRAYS}
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in ARRAYS if name in archive}
    except FileNotFoundError:
        raise
    except _UNREADABLE as error:
        raise ValueError(f"{path} cannot be read ({_brief(error)}); {_STORING}") from error
    raise ValueError(f"data must be a .npz or .safetensors file or a folder of .npy files, got {path}; {_STORING}")


def _tensor(path: Path, name: str, array: Any) -> torch.Tensor:
    if isinstance(array, torch.Tensor):
        return array
    try:
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
    except TypeError as error:
        raise ValueError(f"{name} of {path} are {array.dtype}, not numbers; {_STORING}") from error


def _brief(error: Exception) -> str:
    """An error in one short line."""
    text = f"{type(error).__name__}: {error}" if isinstance(error, (KeyError, ImportError)) else str(error)
    return textwrap.shorten(text or type(error).__name__, 200, placeholder=" …")


# --- the probe -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Probe:
    """A network scored at full precision and at some narrower widths.

    Attributes:
        table: one row a width, widest first: what :func:`quide.sweep` returns, and ``accuracy_low``, ``accuracy_high``
            (95 % Wilson interval) and ``knee_probability``, the share of resampled test sets in which the width has the
            highest I'.
        correct: bool ``(widths, images)``, which test images were right.
        num_classes: outputs of the network.
        tolerance, threshold: delta of Eq. 4, and what it gives.
        calibrated_on: number of calibration images.
        timings: of the latencies in the table.
        guesses: whether full precision is not clearly better than guessing.
    """

    table: pd.DataFrame
    correct: np.ndarray
    num_classes: int
    tolerance: float
    threshold: float
    calibrated_on: int
    timings: latency.Timings
    guesses: bool = False

    @property
    def knee(self) -> int | None:
        """The width with the highest I'; None when none is above the threshold, or full precision guesses."""
        if self.guesses:
            return None
        return metric.knee(self.table.bits, self.table.gated_index)

    @property
    def knee_at_equal_latency(self) -> int | None:
        """The same, were all widths equally fast."""
        return metric.knee(
            self.table.bits, metric.gated_index(self.table.compression, self.table.accuracy, 1.0, self.threshold)
        )

    def probability(self, bits: int | None) -> float:
        """Share of resampled test sets in which ``bits`` is the knee; None stands for no knee."""
        if bits is None:
            return 1 - self.table.knee_probability.sum()
        return float(self.table.set_index("bits").knee_probability[bits])

    def change(self, bits: int, against: int) -> stats.Interval:
        """Accuracy (fraction) of ``bits`` less that of ``against``, on the same images."""
        before, after = (Hits(self.correct[list(self.table.bits).index(width)]) for width in (against, bits))
        return after.change(before)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the advice and with who made them."""
        facts = {name: getattr(self, name) for name in ("tolerance", "threshold", "num_classes", "calibrated_on")}
        rows = json.loads(self.table.to_json(orient="records", double_precision=15))
        said = {"knee": self.knee, "advice": advice(self)}
        return {**facts, **said, "rows": rows, "timings": self.timings.to_dict(), "provenance": provenance.collect()}


def probe(
    model: nn.Module,
    data: Data,
    bits: Sequence[int] = WIDTHS,
    *,
    tolerance: float = 0.05,
    passes: int = PASSES,
    progress: bool = False,
) -> Probe:
    """Score a network at full precision and at the given widths, two by default: the probe of the paper's Guideline 2.

    Args:
        model: as :func:`quide.quantize` takes it.
        data: what to test and to calibrate it on.
        bits: uniform widths; 32 is always added, since the threshold and every comparison need it.
        tolerance: accuracy (fraction) you are prepared to lose, the delta of Eq. 4.
        passes: timed passes a width.
        progress: show how far it is.

    Raises:
        ValueError: as :func:`quide.sweep`; no width below 32; a network that does not take the images, or a label that
            is not one of its outputs.
    """
    widths = sorted({FULL_PRECISION, *metric.bit_widths(bits)}, reverse=True)
    if len(widths) == 1:
        raise ValueError(f"bits must name a width below {FULL_PRECISION}, such as 8")
    classes = _num_classes(model, data)
    table = evaluate.sweep(
        model, data.images, data.labels, data.calibration, widths,
        tolerance=tolerance, num_classes=classes, warmup=max(1, passes // WARMUP_SHARE), passes=passes,
        progress=progress,
    )  # fmt: skip
    found, table.attrs = table.attrs, {}
    hits = [Hits.unpacked(found["correct"][evaluate.label(width)]) for width in widths]
    correct, intervals = np.stack([each.correct for each in hits]), [each.interval() for each in hits]
    drawn = stats.bootstrap_knee(correct[None], table.latency_ms, widths, tolerance=tolerance, num_classes=classes)
    table["accuracy_low"], table["accuracy_high"] = zip(*((each.low, each.high) for each in intervals), strict=True)
    guesses = not knees.beats_guessing(correct[0], data.labels.cpu().numpy(), classes)
    table["knee_probability"] = [drawn.probability[width] for width in widths]
    calibrated_on, timings = len(data.calibration), found["timings"]
    return Probe(table, correct, classes, tolerance, found["threshold"], calibrated_on, timings, guesses)


def _num_classes(model: nn.Module, data: Data) -> int:
    """Outputs of the network, found on one image before hours are spent on the others."""
    if len(data.images) == 0:
        raise ValueError("images are none; give the images of a test set")
    shape = tuple(data.images.shape[1:])
    try:
        with torch.inference_mode():
            outputs = copy.deepcopy(model).eval()(data.images[:1])
    except Exception as error:  # the user's own code
        raise ValueError(
            f"the network does not take an image of shape {shape} ({_brief(error)}); "
            "store images as the network takes them: (n, channels, height, width) for a convolution"
        ) from error
    if not isinstance(outputs, torch.Tensor):
        raise ValueError(f"the network must return one score a class, (n, classes), got {type(outputs).__name__}")
    return inputs.check_outputs(outputs, data.labels, rows=1)


# --- what to make of it ----------------------------------------------------------------------------------------------


def advice(found: Probe) -> list[str]:
    """What to do, and how sure that is: sentences, the recommendation first."""
    full = found.table.iloc[0]
    if found.guesses:
        return [
            f"At {FULL_PRECISION} bits the network is right for {full.accuracy:.1%} of the images, hardly more than by "
            "guessing: nothing can be said of narrower widths. Were the weights loaded, and are the images normalized "
            "as in training?"
        ]
    return [*_recommendation(found), *_changes(found), *_reservations(found)]


def _recommendation(found: Probe) -> list[str]:
    best = found.knee
    if best is None:
        return ["No width is above the threshold: allow a larger --tolerance."]
    if best == FULL_PRECISION:
        said = f"Stay at {FULL_PRECISION} bits: at this tolerance none of the narrower widths is worth it."
    else:
        said = f"Use {best} bits: highest I' of the widths tried."
    return [f"{said} {_certainty(found, best)}", *_what_next(found, best)]


def _certainty(found: Probe, best: int) -> str:
    share = found.probability(best)
    if share >= SURE:
        return f"So it is in {share:.0%} of the test sets drawn again from yours."
    second = found.table.set_index("bits").knee_probability.drop(best).idxmax()
    return (
        f"But the {found.correct.shape[1]} test images do not settle it: {best} bits come first in {share:.0%} of the "
        f"test sets drawn again from yours, {second} bits in {found.probability(second):.0%}. Use more images, or be "
        f"content with {max(best, second)} bits."
    )


def _what_next(found: Probe, best: int) -> list[str]:
    """What lies between the best width and the next narrower one."""
    narrower = found.table.bits[found.table.bits < best]
    if narrower.empty:
        return []
    if best == FULL_PRECISION:
        tried = narrower.max() >= HALF_PRECISION
        return [] if tried else [f"Or try {HALF_PRECISION} bits: --bits {HALF_PRECISION},{narrower.max()}."]
    return [f"Between {best} and {narrower.max()} bits lies mixed precision, a width for each layer: see quide.search."]


def _changes(found: Probe) -> list[str]:
    """The accuracy of each width against that of the next wider one."""
    said = []
    for wide, narrow in zip(found.table.bits, found.table.bits[1:], strict=False):
        change = found.change(narrow, wide)
        points = f"{100 * change.estimate:+.2f} percentage points [{100 * change.low:+.2f}, {100 * change.high:+.2f}]"
        chance = ", which may be chance" if change.low <= 0 <= change.high else ""
        said.append(f"Accuracy of {narrow} bits against {wide}: {points}{chance}.")
    return said


def _reservations(found: Probe) -> list[str]:
    said = []
    if (equal := found.knee_at_equal_latency) != found.knee and equal is not None:
        said.append(
            f"The latencies decide: were all widths equally fast, it would be {equal} bits. They are those of "
            "simulated quantization, slower than the network it imitates; measure on the device you have in mind."
        )
    if found.timings.noisy:
        rests = "rests on it" if found.knee_at_equal_latency != found.knee else "is the same at equal latencies"
        said.append(
            f"The timing is noisy: {'; '.join(found.timings.reasons)}. The recommendation {rests}; "
            "time again on a quiet machine."
        )
    if found.knee not in (None, *WITH_KERNELS):
        said.append(
            f"Few devices compute in {found.knee} bits: without a kernel for that width the network is smaller in "
            "storage alone, not faster."
        )
    if found.calibrated_on < CALIBRATION_SIZE:
        said.append(f"Only {found.calibrated_on} calibration images; the paper uses {CALIBRATION_SIZE}.")
    return said


def as_text(found: Probe) -> str:
    """The table in fixed columns, and the advice under it."""
    rows = [
        {
            "bits": row["bits"],
            "C": f"{row['compression']:.2f}",
            "P (%) [95 %]": "{:.2f} [{:.2f}, {:.2f}]".format(
                *(100 * row[name] for name in ("accuracy", "accuracy_low", "accuracy_high"))
            ),
            "T (ms)": f"{row['latency_ms']:.3f}",
            "I": f"{row['index']:.3f}",
            "I'": f"{row['gated_index']:.3f}",
            "P(knee)": f"{row['knee_probability']:.2f}",
        }
        for row in found.table.to_dict("records")
    ]
    return "\n".join([pd.DataFrame(rows).to_string(index=False), "", _conditions(found), *advice(found)])


def _conditions(found: Probe) -> str:
    images = found.correct.shape[1]
    passes = found.timings.latencies[str(FULL_PRECISION)].passes
    return (
        f"P: {images} images; I' counts what is above {found.threshold:.2%}, from a tolerance of {found.tolerance:g}. "
        f"T: median of {passes} passes of {min(latency.BATCH_SIZE, images)} images, simulated quantization."
    )


def save(found: Probe, file: Path) -> None:
    """Write the table as ``.csv``, or everything as ``.json``; errors as :func:`check_format`."""
    check_format(file)
    if file.suffix == ".csv":
        found.table.to_csv(file, index=False)
    else:
        file.write_text(json.dumps(found.to_dict(), indent=1) + "\n")


def check_format(file: Path) -> None:
    """Refuse a file that :func:`save` could not write, before the work is done.

    Raises:
        ValueError: another ending.
        FileNotFoundError: its folder does not exist.
    """
    if file.suffix not in FORMATS:
        raise ValueError(f"output must end in {' or '.join(FORMATS)}, got {file}")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"{file.parent} does not exist; make it, or name another --output")
