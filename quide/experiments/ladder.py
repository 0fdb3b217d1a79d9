"""The ladder of better quantization (Nagel et al. 2021, arXiv 2106.08295): a rung a technique, at few bits.

Each rung keeps what the one below it does and adds one thing. Activations have the width that is stated; the image,
which is the first layer's input, stays at 8 bits from its rung on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from quide._check import one_of
from quide.experiments import records, runs
from quide.experiments.measured import Run, measured
from quide.experiments.runs import Case
from quide.ptq.scheme import BEST, PAPER, Scheme
from quide.ptq.width import Width, label, read

WIDTHS = (Width(8, 8), Width(4, 8), Width(4, 4), Width(3, 3), Width(2, 2))
CALIBRATION_SIZE = 1024
EDGE_BITS = 8  # of the image, and of the first and last layer where a rung keeps them
SIZES, DRAWS = (1, 8, 64, 512, 5000), 10  # calibration sets, and how often each size is drawn
STRANGE, STRANGE_IMAGES = ("noise", "handwritten digits"), 512
DRAWN_FOR = ("resnet20", "cifar10")
MODELS = (
    ("simplecnn", "mnist"), ("simplecnn", "cifar10"), ("resnet20", "cifar10"), ("mobilenetv2", "cifar10"),
    ("resnet18", "cifar10"),
)  # fmt: skip
_INPUTS = replace(PAPER, activation_site="input", quantize_logits=False)
_SIGNED = replace(BEST, weight_levels="full")  # at 2 bits four levels instead of three
_TENSOR = replace(BEST, weight_per_channel=False)


@dataclass(frozen=True)
class Rung:
    """One way to quantize.

    Attributes:
        name: as records and tables have it.
        scheme, techniques: as :func:`quide.quantize` takes them.
        keeps: ``"image"`` keeps the image at :data:`EDGE_BITS`, ``"edges"`` the first and last layer too.
        epochs: of training, by width; PTQ has none.
        batch_norm: as :func:`quide.qat` takes it.
        below: the rung that it adds one thing to.
    """

    name: str
    scheme: Scheme
    techniques: tuple[str, ...] = ()
    keeps: str = ""
    epochs: tuple[tuple[str, int], ...] = ()
    batch_norm: str = "reestimated"
    below: str = ""

    @property
    def widths(self) -> tuple[Width, ...]:
        """The widths it is tried at."""
        return tuple(read(width) for width, _ in self.epochs) or WIDTHS


LADDER = (
    Rung("the paper's", PAPER),
    Rung("inputs rounded", _INPUTS, below="the paper's"),
    Rung("scale a channel", replace(_INPUTS, weight_per_channel=True), below="inputs rounded"),
    Rung("least squares", BEST, below="scale a channel"),
    Rung("image at 8 bits", BEST, keeps="image", below="least squares"),
    Rung("bias correction", BEST, ("correct_bias",), "image", below="image at 8 bits"),
    Rung("AdaRound", BEST, ("adaround",), "image", below="image at 8 bits"),
    Rung("BRECQ", BEST, ("brecq",), "image", below="AdaRound"),
    Rung("LSQ", _SIGNED, (), "edges", (("w4a4", 2), ("w2a2", 8)), below="BRECQ"),
)
BESIDE = (  # with one scale a tensor, which equalization is for
    Rung("least squares, scale a tensor", _TENSOR, keeps="image", below="inputs rounded"),
    Rung("equalization", _TENSOR, ("equalize",), "image", below="least squares, scale a tensor"),
    Rung("equalization, biases absorbed", _TENSOR, ("equalize", "absorb_bias"), "image", below="equalization"),
)
ABLATION = (  # LSQ with batch norms treated in other ways
    Rung("LSQ, batch norms folded", _SIGNED, (), "edges", (("w4a4", 2),), "folded", below="LSQ"),
    Rung("LSQ, batch norms left", _SIGNED, (), "edges", (("w4a4", 2),), "left", below="LSQ"),
)
RUNGS = {rung.name: rung for rung in (*LADDER, *BESIDE, *ABLATION)}


def code(model: str) -> tuple[str, ...]:
    """What makes a network, its input and the techniques by name, for digests."""
    techniques = ("adaround:AdaRound", "bias:CorrectBias", "brecq:Brecq", "equalize:AbsorbBias", "equalize:Equalize")
    return (*runs.ptq_code(model), *(f"quide.ptq.{each}" for each in techniques))


@measured("ladder", "quide.experiments.compute.ladder:ladder", code, runs.test_checksum)
def ladder(case: Case, rung: str) -> dict:
    """A network on one rung, at each width of the rung.

    Values, by width (``"w4a8"``): ``accuracy`` (fraction), ``correct`` (packed), and ``seconds`` that quantizing took
    on ``threads``; ``checks`` of what learns to round: ``closed``, the least share of variables in a layer or block
    that decided, and ``nearest`` and ``hard``, mean squared errors summed over them, of rounding to nearest and of what
    is used; ``accuracy`` and ``correct`` in full precision too, by ``"32"``; ``images``.
    """
    chosen = RUNGS[one_of("rung", rung, RUNGS)]
    return {
        "rung": rung,
        "scheme": records.described(chosen.scheme),
        "techniques": list(chosen.techniques),
        "keeps": chosen.keeps,
        "epochs": dict(chosen.epochs),
        "batch_norm": chosen.batch_norm if chosen.epochs else "folded",
        "bits": [label(width) for width in chosen.widths],
        "calibration_size": CALIBRATION_SIZE,
        "training_seed": case.training_seed,
        "test_images": case.size.test_images,
    }


@measured("calibration_draws", "quide.experiments.compute.ladder:calibration_draws", code, runs.test_checksum)
def calibration_draws(case: Case, rung: str = "image at 8 bits", bits: str = "w4a4") -> dict:
    """A network on one rung, calibrated on other images.

    Values: ``accuracy`` and ``correct`` by ``"<size>, <draw>"`` of :data:`SIZES` and :data:`DRAWS`, and by ``"<what>,
    <draw>"`` of :data:`STRANGE`, what is no training image; ``images``.
    """
    return {
        "rung": rung,
        "scheme": records.described(RUNGS[rung].scheme),
        "bits": bits,
        "sizes": list(SIZES),
        "draws": DRAWS,
        "strange": list(STRANGE),
        "strange_images": STRANGE_IMAGES,
        "training_seed": case.training_seed,
        "test_images": case.size.test_images,
    }


def wanted(seeds: Sequence[int] = (0,), models: Sequence[tuple[str, str]] = MODELS) -> list[Run]:
    """All that the page shows, rung by rung; what needs a training set comes last."""
    cases = [Case(*model, seed, runs.longest_profile(*model)) for model in models for seed in seeds]
    untrained = [rung for rung in RUNGS if not RUNGS[rung].epochs]
    found = [ladder(case, rung) for rung in untrained for case in cases]
    found += [ladder(case, "LSQ") for case in cases if not case.row.slow]  # which trains for ten epochs
    found += [ladder(case, rung.name) for case in cases if (case.model, case.dataset) == DRAWN_FOR for rung in ABLATION]
    return [*found, *(calibration_draws(Case(*DRAWN_FOR, seed, "paper")) for seed in seeds)]
