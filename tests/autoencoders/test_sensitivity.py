"""Two values of a parameter give different autoencoders: no parameter is ignored."""

from collections.abc import Callable
from typing import Any

import pytest

from study.config import (
    ArmConfig,
    AutoencoderTrainingConfig,
    Family,
    Interpolation,
    Reduction,
    ScaleMode,
    Trainable,
)

MakeArm = Callable[..., ArmConfig]
MakeTraining = Callable[..., AutoencoderTrainingConfig]
Train = Callable[..., Any]
"""Fixture `trained`: gives weights and log."""


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        (Family.kl, {"steps": 4}),
        (Family.kl, {"batch_size": 3}),
        (Family.kl, {"learning_rate": 2e-3}),
        (Family.kl, {"perceptual_weight": 1.0}),
        (Family.kl, {"kl_weight": 1e-2}),
        (Family.kl, {"adversarial_weight": 0.25}),
        (Family.kl, {"adversarial_start": 1}),
        (Family.kl, {"discriminator_width": 8}),
        (Family.vq, {"commitment_weight": 0.5}),
        (Family.vq, {"codebook_start": 1}),
        (Family.vq, {"transformed_quantisation_loss": True}),
        (Family.kl, {"separate_draws": True}),
    ],
)
def test_every_training_parameter_matters(
    trained: Train,
    make_training: MakeTraining,
    make_arm: MakeArm,
    family: Family,
    changes: dict[str, float],
) -> None:
    arm = make_arm()
    base = trained(make_training(), arm, family)
    assert not base.same_weights(trained(make_training(**changes), arm, family))


@pytest.mark.parametrize(
    "changes",
    [
        {"trainable": Trainable.decoder},
        {"equivariance_probability": 0.0},
        {"low_resolution_probability": 0.0},
        {"scale": ScaleMode.none},
        {"scale": ScaleMode.anisotropic},
        {"rotation": False},
        {"interpolation": Interpolation.bicubic},
        {"antialias": True},
        {"reduction": Reduction.mean},
        {"explicit_weight": 0.1},
        {"downscaled_weight": 0.25},
        {"after_quantisation": True},
    ],
)
def test_every_key_of_an_arm_matters(
    trained: Train, make_training: MakeTraining, make_arm: MakeArm, changes: dict[str, object]
) -> None:
    # Half the steps are equivariant, half of low resolution, so that no key is idle.
    half = {"equivariance_probability": 0.5, "low_resolution_probability": 0.5}
    family = Family.vq if "after_quantisation" in changes else Family.kl
    base = trained(make_training(), make_arm(**half), family)
    assert not base.same_weights(trained(make_training(), make_arm(**{**half, **changes}), family))


def test_stopping_the_explicit_gradient_matters(
    trained: Train, make_training: MakeTraining, make_arm: MakeArm
) -> None:
    base, stopped = (
        trained(make_training(), make_arm(explicit_weight=1.0, explicit_stop_gradient=stop))
        for stop in (False, True)
    )
    assert not base.same_weights(stopped)
