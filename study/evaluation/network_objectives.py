"""What the in-domain networks learn from: classes, or views of one image without its class."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from study.evaluation.networks.in_domain import InDomainNetwork

Terms = dict[str, Tensor]
"""Terms of a loss, by name; the loss is their sum."""

LABEL_SMOOTHING = 0.1
"""Keeps features from collapsing onto class means, blind to differences within a class."""
INVARIANCE, VARIANCE = 10, 25
"""VICReg's λ and μ, which are 25 and 25 in the paper: in the hundreds of steps here λ = 25 holds
embeddings far below a standard deviation of 1, and features tell classes worse apart."""
EXPANSION = 4
"""Width of VICReg's expander and of its embeddings, in dimensions of the features."""
CROP = 0.875
"""Side of a view, of the image's: cut and not resized, so that sharpness stays a feature."""


class Classification(nn.Module):
    """Cross-entropy of horizontally flipped images, shifted by up to an eighth."""

    def __init__(self, network: InDomainNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, labels: Tensor, rng: np.random.Generator) -> Terms:
        """Terms of the loss, for images in [-1, 1], B 3 H W, and their classes."""
        logits = self.network(_augment(images, rng))
        return {"loss": functional.cross_entropy(logits, labels, label_smoothing=LABEL_SMOOTHING)}


class VICReg(nn.Module):
    """Two views of an image have one embedding, whose dimensions vary and are uncorrelated.

    l = λ s(Z, Z') + μ (v(Z) + v(Z')) + c(Z) + c(Z')  [VICReg, 2105.04906, Eq. 6, of Eqs. 1 to 5]

    It needs neither negative pairs, hence no large batch, nor a second network, and its terms bar
    collapse by themselves. s is a mean over dimensions too, as v and c are. Views are crops, mirror
    images and changes of colour, none of them resampled: what the network need not tell apart is
    place and colour, not sharpness or noise. Departures: `reports/deviations.md`, 28.
    """

    def __init__(self, network: InDomainNetwork, features: int) -> None:
        super().__init__()
        width = EXPANSION * features
        self.network = network
        self.expand = nn.Sequential(
            nn.Linear(features, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, width),
        )

    def forward(self, images: Tensor, labels: Tensor, rng: np.random.Generator) -> Terms:
        """Terms of the loss, for images in [-1, 1], B 3 H W; labels are not looked at."""
        views = torch.cat([view(images, rng), view(images, rng)])
        one, two = self.expand(self.network.features(views)).chunk(2)
        return {
            "invariance": INVARIANCE * functional.mse_loss(one, two),
            "variance": VARIANCE * (_variance(one) + _variance(two)),
            "covariance": _covariance(one) + _covariance(two),
        }


def _variance(embeddings: Tensor) -> Tensor:
    """By how much standard deviations fall short of 1, mean over dimensions [Eqs. 1 and 2]."""
    return functional.relu(1 - (embeddings.var(0) + 1e-4).sqrt()).mean()


def _covariance(embeddings: Tensor) -> Tensor:
    """Sum of squared covariances of different dimensions, over dimensions [Eqs. 3 and 4]."""
    centred = embeddings - embeddings.mean(0)
    covariance = centred.T @ centred / (len(embeddings) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / len(covariance)


def view(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Of each image a crop of seven eighths of its side, perhaps mirrored, with other colours.

    Gain and offset of each channel are drawn; one view in five is grey.
    """
    count, _, height, width = images.shape
    rows, columns = (
        rng.integers(side - int(CROP * side) + 1, size=(count, 1)) + np.arange(int(CROP * side))
        for side in (height, width)
    )
    mirrored = rng.random((count, 1)) < 0.5
    columns = np.where(mirrored, columns[:, ::-1], columns)
    places = np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]
    index = [torch.from_numpy(place).to(images.device) for place in places]
    cut = images.permute(0, 2, 3, 1)[tuple(index)].permute(0, 3, 1, 2).contiguous()
    gain, offset, grey = (
        torch.from_numpy(drawn.astype(np.float32)).to(images.device)
        for drawn in (
            rng.uniform(0.6, 1.4, (count, 3, 1, 1)),
            rng.uniform(-0.4, 0.4, (count, 3, 1, 1)),
            rng.random((count, 1, 1, 1)) < 0.2,
        )
    )
    cut = gain * cut + offset
    return torch.where(grey > 0, cut.mean(1, keepdim=True), cut)


def _augment(images: Tensor, rng: np.random.Generator) -> Tensor:
    flips = torch.from_numpy(rng.random(len(images)) < 0.5).to(images.device).view(-1, 1, 1, 1)
    images = torch.where(flips, images.flip(-1), images)
    most = images.shape[-1] // 8
    down, right = rng.integers(-most, most + 1, size=2)
    padded = functional.pad(images, [most] * 4, mode="reflect")
    height, width = images.shape[-2:]
    return padded[..., most + down :, most + right :][..., :height, :width]
