"""Parameters of the images and of the networks trained on them."""

from dataclasses import dataclass
from enum import Enum

from study.config.checks import Checked


class Source(Enum):
    """Where images come from."""

    shapes = "shapes"
    parquet = "parquet"
    image_folder = "image_folder"
    huggingface = "huggingface"


class Role(Enum):
    """What an in-domain network is for; no weights are shared between roles."""

    extractor = "extractor"
    perceptual = "perceptual"
    target = "target"
    extractor_self_supervised = "extractor_self_supervised"


NO_NETWORK = "none"
"""Choice `network` of reference statistics that no second extractor makes."""


@dataclass(kw_only=True, slots=True)
class DataConfig(Checked):
    """Group `data`: a source of labelled images."""

    source: Source
    path: str | None
    """parquet, image_folder: folder with train and validation parts; huggingface: hub id."""
    revision: str | None
    """huggingface: commit of the data set."""
    image_column: str | None
    label_column: str | None
    num_classes: int | None
    """shapes: number of classes to draw; elsewhere classes are read from the data."""

    def __post_init__(self) -> None:
        if self.source is Source.shapes:
            self._rule("num_classes", self.num_classes in range(2, 13), "from 2 to 12 for shapes")
        else:
            self._rule("path", bool(self.path), f"set for source {self.source.value}")
        if self.source in (Source.parquet, Source.huggingface):
            self._rule("image_column", bool(self.image_column), "the name of a column")
            self._rule("label_column", bool(self.label_column), "the name of a column")


@dataclass(kw_only=True, slots=True)
class PrepareDataConfig(Checked):
    """Section `prepare_data`."""

    image_size: int
    """Side in pixels; images are resized on the short side and centre-cropped."""
    train_images: int | None
    """Images to keep (class-balanced as the source is ordered); null: all."""
    validation_images: int | None
    seed: int
    """Seed of procedural images."""

    def __post_init__(self) -> None:
        self._at_least(8, "image_size")
        self._rule("image_size", self.image_size % 8 == 0, "a multiple of 8")
        for name in ("train_images", "validation_images"):
            if getattr(self, name) is not None:
                self._at_least(1, name)


@dataclass(kw_only=True, slots=True)
class NetworkConfig(Checked):
    """Group `network`: an in-domain network of one role."""

    role: Role
    architecture: str
    """residual, plain, patch or bottleneck: different for each role."""
    widths: list[int]
    """Channels per resolution level; each level halves the side."""
    features: int
    """Feature dimension D."""
    seed: int

    def __post_init__(self) -> None:
        known = ("residual", "plain", "patch", "bottleneck")
        self._rule("architecture", self.architecture in known, f"one of {', '.join(known)}")
        self._rule("widths", bool(self.widths) and min(self.widths) >= 4, "a list of at least 4")
        self._at_least(4, "features")


@dataclass(kw_only=True, slots=True)
class TrainNetworkConfig(Checked):
    """Section `train_network`: optimisation of every role on the study's own training images."""

    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float

    def __post_init__(self) -> None:
        self._at_least(1, "steps", "batch_size")
        self._above(0, "learning_rate")
        self._at_least(0, "weight_decay")
