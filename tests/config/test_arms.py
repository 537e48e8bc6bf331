"""Two arms differ only in the keys that define them."""

import pytest

from study.config import ArmConfig, choices, load_group, plain

DEFINED_BY: dict[str, tuple[str, set[str]]] = {
    "pretrained": ("plain", {"trainable"}),
    "eq": (
        "plain",
        {"equivariance_probability", "low_resolution_probability", "scale", "rotation"},
    ),
}
"""Arm: the arm it is compared with, and the keys that may differ."""


def test_every_arm_says_what_defines_it() -> None:
    assert set(choices("arm")) == {"plain", *DEFINED_BY}


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
    }
