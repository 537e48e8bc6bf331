"""Two arms differ only in the keys that define them."""

import pytest

from study.config import ArmConfig, choices, load_group, plain
from study.report.names import ARMS

RELEASED = {"equivariance_probability", "low_resolution_probability", "scale", "rotation"}

DEFINED_BY: dict[str, tuple[str, set[str]]] = {
    "pretrained": ("plain", {"trainable"}),
    "plain_low_resolution": ("plain", {"low_resolution_probability"}),
    "plain_decoder": ("plain", {"trainable"}),
    "eq": ("plain", RELEASED),
    "eq_paper": ("eq", {"interpolation", "low_resolution_probability", "reduction"}),
    "eq_rotation": ("eq_paper", {"scale"}),
    "eq_scale": ("eq_paper", {"rotation"}),
    "eq_anisotropic": ("eq_paper", {"scale"}),
    "eq_probability_70": ("eq_paper", {"equivariance_probability"}),
    "eq_probability_30": ("eq_paper", {"equivariance_probability"}),
    "eq_bicubic": ("eq", {"interpolation"}),
    "eq_no_low_resolution": ("eq", {"low_resolution_probability"}),
    "eq_mean_reduction": ("eq", {"reduction"}),
    "eq_after_quantisation": ("eq", {"after_quantisation"}),
    "explicit": ("plain", {"explicit_weight", "scale", "rotation"}),
    "explicit_stopgrad": ("explicit", {"explicit_stop_gradient"}),
    "scale_equivariance": ("plain", {"downscaled_weight", "reduction"}),
    "released": ("pretrained", {"weights", "published_scale"}),
    "released_ema": ("pretrained", {"weights", "published_scale"}),
}
"""Arm: the arm it is compared with, and the keys that may differ."""


def test_every_arm_says_what_defines_it() -> None:
    assert set(choices("arm")) == {"plain", *DEFINED_BY}


def test_every_arm_has_its_place_in_tables() -> None:
    assert set(choices("arm")) <= set(ARMS)


@pytest.mark.parametrize(("arm", "base", "keys"), [(a, b, k) for a, (b, k) in DEFINED_BY.items()])
def test_an_arm_differs_only_in_the_keys_that_define_it(
    arm: str, base: str, keys: set[str]
) -> None:
    ours, theirs = (plain(load_group(ArmConfig, "arm", name)) for name in (arm, base))
    assert {key for key in ours if ours[key] != theirs[key]} == keys


def test_the_released_recipe() -> None:
    assert plain(load_group(ArmConfig, "arm", "eq")) == {
        "trainable": "all",
        "equivariance_probability": 0.5,
        "low_resolution_probability": 0.125,
        "scale": "isotropic",
        "rotation": True,
        "interpolation": "bilinear",
        "antialias": False,
        "reduction": "sum",
        "explicit_weight": 0.0,
        "explicit_stop_gradient": False,
        "downscaled_weight": 0.0,
        "after_quantisation": False,
        "weights": None,
        "published_scale": None,
    }


@pytest.mark.parametrize(("arm", "probability"), [("70", 0.7), ("30", 0.3)])
def test_the_number_in_the_name_is_the_probability_of_tau(arm: str, probability: float) -> None:
    config = load_group(ArmConfig, "arm", f"eq_probability_{arm}")
    assert config.equivariance_probability == probability
