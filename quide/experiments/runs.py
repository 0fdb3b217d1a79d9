"""The measurements of the image experiments: what names the record of each.

Accuracy belongs to (network, data, seed, scheme, widths), latency to (network, widths, device): they are separate
records, and a table joins them. :mod:`quide.experiments.compute.images` computes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from quide import ptq
from quide._check import one_of, whole
from quide.data import facts
from quide.experiments import paper, provenance, records
from quide.experiments.measured import Run, measured  # noqa: F401 - a run is known by this name too
from quide.experiments.parameters import SEED_LIMIT
from quide.experiments.profiles import Profile, profile
from quide.models import registry

CALIBRATION_SIZE = 512  # §3.3
EMBEDDED_SEED = 0  # the training seed of the checkpoint that travels with the checkout
SELECTIONS = ("best", "last")
_HERE = [row for row in registry.ROWS if row.builder and not row.aside]  # nor those of ImageNet
CONDITION = {(row.model, row.dataset): row.condition for row in _HERE if row.papers}
BESIDE = {(row.model, row.dataset): row.condition for row in _HERE if not row.papers}
# Trained by others: the seed draws the calibration images and nothing else.
PUBLISHED = tuple((row.model, row.dataset) for row in _HERE if row.published)
# Timed beside the paper's widths: 16 bits in two more ways, and 8 bits with the quantizers moved past pooling. Records
# from before bfloat16 was timed lack it.
INTEGER_16, BFLOAT_16, COMMUTED_8 = "16 (integer grid)", "16 (bfloat16)", "8 (after pooling)"
SIXTEEN = {"16": "float16 cast", BFLOAT_16: "bfloat16 cast", INTEGER_16: "integer grid"}  # what 16 bits can mean
SCHEDULES = (30, 20, 12, 3)  # epochs that the short profile has been or is run with, the longest first
UNNAMED = 3  # the schedule of records whose keys do not name one
WIDTHS, GROUP = (8, 4, 3, 2), 64
# What is rounded as in language models, by name: how fine the weights' scales are, and whether outputs are too.
CROSS_SCHEMES = {
    "weights per tensor": ("tensor", False),
    f"weights by groups of {GROUP}": (GROUP, False),
    "weights and outputs per tensor": ("tensor", True),
}


@dataclass(frozen=True)
class Case:
    """One network on one data set at one profile and seed; what the seed decides is the profile's matter.

    ``epochs`` is for the short profile alone: another schedule than this machine's.
    """

    model: str
    dataset: str
    seed: int
    profile: str = "quick"
    epochs: int | None = None

    def __post_init__(self):
        facts.info(self.dataset)
        profile(self.profile)
        row = registry.row(self.model, self.dataset)
        if self.size.epochs is not None and not row.slow:
            slow = ", ".join(sorted({row.model for row in registry.ROWS if row.slow}))
            raise ValueError(f"profile {self.profile} is for {slow}, got model {self.model!r}; use profile paper")
        whole("seed", self.seed, 0, SEED_LIMIT - 1)

    @property
    def size(self) -> Profile:
        """The profile."""
        return profile(self.profile)

    @property
    def row(self) -> registry.Row:
        """All facts about the network."""
        return registry.row(self.model, self.dataset)

    @property
    def published(self) -> bool:
        """Whether its weights are others', and the same for every seed."""
        return self.row.published

    @property
    def schedule(self) -> int | None:
        """Epochs of a short training; None of the paper's."""
        return None if self.size.epochs is None else self.epochs or self.size.epochs

    @property
    def recipe(self) -> registry.TrainingRecipe:
        """The paper's training recipe for this network and data set, shortened where the profile says so."""
        if self.published:
            raise ValueError(f"model {self.model} is not trained here: its weights on {self.dataset} are published")
        return self.row.recipe if self.schedule is None else self.row.recipe.shortened(self.schedule)

    @property
    def training_seed(self) -> int | None:
        """The seed its weights come from; None of published weights."""
        if self.published:
            return None
        return EMBEDDED_SEED if self.size.embedded else self.seed

    @property
    def weights_name(self) -> str:
        """Name, without ending, of the files that hold its weights: one for each network, data set, schedule, seed."""
        schedule = "" if self.size.epochs is None else f"-{self.profile}"
        return f"{self.model}-{self.dataset}{schedule}-seed{self.training_seed}"

    def spec(self, kind: str, details: dict) -> records.RunSpec:
        """The spec of a run of this case; what follows a training names its schedule."""
        if kind != "training" and self.schedule not in (None, UNNAMED):
            details = details | {"epochs": self.schedule}
        return records.RunSpec(kind, self.model, self.dataset, self.seed, self.profile, details)

    def others(self) -> tuple[Case, ...]:
        """The same with each other schedule that there are records of."""
        if self.schedule is None or self.epochs is not None:
            return ()
        return tuple(replace(self, epochs=epochs) for epochs in SCHEDULES if epochs != self.schedule)


def longest_profile(model: str, dataset: str) -> str:
    """The profile of all test images that a CPU runs a network at in hours."""
    return "short" if registry.row(model, dataset).slow else "paper"


def schedule_of(spec: records.RunSpec) -> int | None:
    """Epochs of the short training that a record stands on; None of the paper's."""
    if profile(spec.profile).epochs is None:
        return None
    return spec.details["recipe"]["epochs"] if spec.kind == "training" else spec.details.get("epochs", UNNAMED)


def ptq_code(model: str) -> tuple[str, ...]:
    """The code that makes a network and its input, for digests."""
    data = "quide.data.datasets:normalize", "quide.data.datasets:calibration_indices"
    return f"quide.models.networks:{registry.BUILDERS[model]}", *data


def training_code(model: str) -> tuple[str, ...]:
    """The same of what trains it."""
    return "quide.models.train:fit", f"quide.models.networks:{registry.BUILDERS[model]}"


def test_checksum(spec: records.RunSpec) -> str:
    """SHA-256 of the images accuracy is measured on; and of the weights, where they are not made here."""
    embedded = profile(spec.profile).embedded
    images = facts.PARTS[spec.dataset]["test"].sha256 if embedded else _pinned(spec, "test")
    return f"{images} {registry.row(spec.model, spec.dataset).sha256}".rstrip()


def training_checksum(spec: records.RunSpec) -> str:
    """SHA-256 of both splits."""
    return f"{_pinned(spec, 'train')} {_pinned(spec, 'test')}"


def _pinned(spec: records.RunSpec, split: str) -> str:
    return facts.info(spec.dataset).sha256[split] or "unpinned"


@measured("training", "quide.experiments.compute.images:training", training_code, training_checksum)
def training(case: Case, device: str = "cpu", progress: bool = True) -> dict:
    """Training the case's network by its recipe, on a GPU in mixed precision; resumes from the checkpoint of an
    interrupted run.

    Values: ``history`` (:class:`quide.models.train.Fit`), ``best_epoch``,
    ``best_accuracy``, ``last_accuracy`` (fractions of the test set), and the packed bit sets ``correct_best`` and
    ``correct_last``.
    """
    return {"recipe": records.described(case.recipe)}


@measured("accuracy", "quide.experiments.compute.images:accuracy", ptq_code, test_checksum)
def accuracy(
    case: Case,
    bits: Sequence[int | Sequence[int]] = paper.BITS,
    scheme: ptq.Scheme = ptq.PAPER,
    selection: str = "best",
    calibration_size: int = CALIBRATION_SIZE,
) -> dict:
    """Accuracy of the case's network at several widths under one scheme.

    Args:
        case: which network and data.
        bits: configurations, each one width for all layers or one width a layer.
        scheme: the PTQ recipe.
        selection: weights of the ``"best"`` or the ``"last"`` epoch.
        calibration_size: images the activation ranges are read from, drawn with the case's seed.

    Values: by configuration label (:func:`quide.evaluate.label`), ``accuracy`` (fraction) and ``correct`` (packed bit
    set over the test images, in their order); and ``images``, their number.
    """
    one_of("selection", selection, SELECTIONS)
    return {
        "scheme": records.described(scheme),
        "bits": [width if isinstance(width, int) else list(width) for width in bits],
        "selection": selection,
        "calibration_size": calibration_size,
        "training_seed": case.training_seed,
        "test_images": case.size.test_images,
    }


@measured("latency", "quide.experiments.compute.images:timing", ptq_code, test_checksum)
def timing(case: Case, device: str = "cpu", progress: bool = True) -> dict:
    """Latency of the case's network at the paper's widths, by its protocol, simulated quantization on this machine.

    16 bits is a float16 cast (the scheme's ``sixteen_bit="float16"``); 8, 4 and 2 round after every layer, as a
    simulating framework does. 16 bits is timed as a bfloat16 cast and on an integer grid too, since many CPUs emulate
    float16; and 8 bits with the quantizers moved past pooling and merged with the ReLUs, which returns the same
    numbers.

    Values: :meth:`quide.latency.Timings.to_dict`. The machine is in the spec: another one makes a record beside this.
    """
    return {
        "backend": "simulated",
        "scheme": records.described(ptq.PAPER),
        "warmup": case.size.warmup,
        "passes": case.size.passes,
        "environment": provenance.environment(device),
        "training_seed": case.training_seed,
    }


@measured("weight_only", "quide.experiments.compute.images:weight_only", ptq_code, test_checksum)
def weight_only(case: Case, progress: bool = True) -> dict:
    """An image network with its weights alone rounded, or its outputs too, at the widths that language models have.

    Values: by ``"<scheme>, <bits>"`` (:data:`CROSS_SCHEMES`) and at ``"32"``, ``accuracy`` and ``correct`` as
    :func:`quide.experiments.runs.accuracy`, and ``stored_bytes`` of its weights; ``images``.
    """
    return {
        "schemes": {name: list(scheme) for name, scheme in CROSS_SCHEMES.items()},
        "bits": list(WIDTHS),
        "calibration_size": CALIBRATION_SIZE,
        "training_seed": case.training_seed,
        "test_images": case.size.test_images,
    }
