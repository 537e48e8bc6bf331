"""Reference statistics: what real images look like to an extractor."""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from study import paths
from study.config import ConfigError, EvaluationConfig
from study.evaluation.distances import CPU, Array, Statistics, statistics
from study.evaluation.features import Features

KEPT_FEATURES = 5000
"""Features kept for what needs the features themselves: KID, precision and its relatives."""
_SETS = ("train", "train_spatial", "held_out", "second")
_ADM = {"mu": 1, "sigma": 2, "mu_s": 1, "sigma_s": 2}
"""Arrays of ADM's reference file and their numbers of dimensions."""


@dataclass(slots=True)
class Reference:
    """Features of the training images, summarised, and of held-out images."""

    train: Statistics
    """What distances are to; with `adm`, ADM's statistics of ImageNet."""
    train_spatial: Statistics
    train_features: Array
    """Spread over the set, M D."""
    held_out: Statistics
    nearest_held_out: dict[str, float]
    """Mean distance of held-out images to their nearest training image: `features`, `pixels`."""
    class_counts: list[int]
    extractor: str
    source: str
    """What the first three are of."""
    adm: bool
    second: Statistics | None = None
    """Of the training images by the second extractor; None where there is none."""

    @classmethod
    def of(
        cls,
        train: Features,
        held_out: Features,
        nearest_held_out: dict[str, float],
        class_counts: list[int],
        extractor: str,
        device: torch.device = CPU,
    ) -> "Reference":
        """Summarise the features of training and held-out images."""
        return cls(
            statistics(train.vectors, device),
            statistics(train.spatial, device),
            spread(train.vectors),
            statistics(held_out.vectors, device),
            nearest_held_out,
            class_counts,
            extractor,
            f"{len(train)} training images",
            adm=False,
        )

    def save(self, file: Path) -> None:
        """Write an .npz without pickled objects."""
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name("partial-" + file.name)
        sets = {
            f"{name}_{part}": getattr(getattr(self, name), part)
            for name in _SETS
            for part in ("mean", "covariance", "count")
            if getattr(self, name) is not None
        }
        np.savez(
            partial,
            **sets,
            train_features=self.train_features,
            nearest_held_out=np.array([self.nearest_held_out[k] for k in ("features", "pixels")]),
            class_counts=np.array(self.class_counts),
            extractor=np.array(self.extractor),
            source=np.array(self.source),
            adm=np.array(self.adm),
        )
        partial.replace(file)

    @classmethod
    def load(cls, file: Path) -> "Reference":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: not there.
        """
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file; made by stage reference_statistics")
        with np.load(file, allow_pickle=False) as content:
            sets = {
                name: Statistics(
                    content[f"{name}_mean"],
                    content[f"{name}_covariance"],
                    int(content[f"{name}_count"]),
                )
                for name in _SETS
                if f"{name}_mean" in content
            }
            nearest = content["nearest_held_out"].tolist()
            return cls(
                **sets,
                train_features=content["train_features"],
                nearest_held_out=dict(zip(("features", "pixels"), nearest, strict=True)),
                class_counts=content["class_counts"].tolist(),
                extractor=str(content["extractor"]),
                source=str(content["source"]),
                adm=bool(content["adm"]),
            )


def spread(features: Array) -> Array:
    """At most 5,000 features, evenly over the set, float32."""
    stride = max(1, len(features) // KEPT_FEATURES)
    return features[::stride][:KEPT_FEATURES].astype(np.float32)


def read_adm(path: str) -> tuple[Statistics, Statistics, NDArray[np.uint8] | None]:
    """ADM's reference file: statistics of vectors and of spatial features, and images if any.

    Args:
        path: .npz below the root with mu, sigma, mu_s, sigma_s and perhaps arr_0 (uint8 N H W 3).

    Returns:
        Statistics in float64, whose number of images the file does not say (0), and images as
        N 3 H W.

    Raises:
        ConfigError: no such file, or not of that form.
    """
    rule = f"must be an .npz of arrays {', '.join(_ADM)}, without pickled objects"
    try:
        with (
            (paths.ROOT / path).open("rb") as file,
            np.load(file, allow_pickle=False) as content,
        ):
            arrays = [content[name].astype(np.float64) for name in _ADM]
            images = content.get("arr_0")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; put ADM's reference batch there") from None
    except (ValueError, TypeError, KeyError, OSError, EOFError, BadZipFile):
        raise ConfigError(f"{path}: {rule}") from None
    if [array.ndim for array in arrays] != list(_ADM.values()):
        raise ConfigError(f"{path}: {rule}")
    mean, covariance, spatial_mean, spatial_covariance = arrays
    return (
        Statistics(mean, covariance, 0),
        Statistics(spatial_mean, spatial_covariance, 0),
        None if images is None else images.transpose(0, 3, 1, 2),
    )


def require_samples(count: int, dimension: int, config: EvaluationConfig, field: str) -> None:
    """Refuse a distance whose covariance is mostly noise.

    Raises:
        ConfigError: fewer samples than twice the feature dimension, where that is not allowed.
    """
    if count < 2 * dimension and not config.allow_few_samples:
        rule = f"at least {2 * dimension}, twice the feature dimension {dimension}"
        raise ConfigError(f"{field} = {count}: must be {rule}")
