"""Reference statistics: what real images look like to an extractor."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from study.config import ConfigError, EvaluationConfig
from study.evaluation.distances import Array, Statistics, statistics

KEPT_FEATURES = 5000
"""Features kept for KID, which needs the features themselves."""


@dataclass(slots=True)
class Reference:
    """Features of the training images, summarised, and of held-out images."""

    train: Statistics
    train_features: Array
    held_out: Statistics
    class_counts: list[int]
    extractor: str

    @classmethod
    def of(
        cls, train: Array, held_out: Array, labels: np.ndarray, num_classes: int, extractor: str
    ) -> "Reference":
        """Summarise features N D and M D of training and held-out images."""
        stride = max(1, len(train) // KEPT_FEATURES)
        counts = np.bincount(labels, minlength=num_classes)
        kept = train[::stride][:KEPT_FEATURES].astype(np.float32)
        return cls(statistics(train), kept, statistics(held_out), counts.tolist(), extractor)

    def save(self, file: Path) -> None:
        """Write an .npz without pickled objects."""
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name("partial-" + file.name)
        np.savez(
            partial,
            train_mean=self.train.mean,
            train_covariance=self.train.covariance,
            train_count=self.train.count,
            train_features=self.train_features,
            held_out_mean=self.held_out.mean,
            held_out_covariance=self.held_out.covariance,
            held_out_count=self.held_out.count,
            class_counts=np.array(self.class_counts),
            extractor=np.array(self.extractor),
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
            parts = [
                Statistics(
                    content[f"{name}_mean"],
                    content[f"{name}_covariance"],
                    int(content[f"{name}_count"]),
                )
                for name in ("train", "held_out")
            ]
            return cls(
                train=parts[0],
                train_features=content["train_features"],
                held_out=parts[1],
                class_counts=content["class_counts"].tolist(),
                extractor=str(content["extractor"]),
            )


def require_samples(count: int, dimension: int, config: EvaluationConfig, field: str) -> None:
    """Refuse a distance whose covariance is mostly noise.

    Raises:
        ConfigError: fewer samples than twice the feature dimension, where that is not allowed.
    """
    if count < 2 * dimension and not config.allow_few_samples:
        rule = f"at least {2 * dimension}, twice the feature dimension {dimension}"
        raise ConfigError(f"{field} = {count}: must be {rule}")
