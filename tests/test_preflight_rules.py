"""Rules between sections: what one section asks of another is refused before anything runs."""

from pathlib import Path

import pytest

from study import paths
from study.config import ConfigError
from study.grid import expand, read_profile
from study.preflight import check_inputs, check_instances


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = tmp_path / "params"
    for file in paths.PARAMS.rglob("*.yaml"):
        target = copy / file.relative_to(paths.PARAMS)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(file.read_text())
    monkeypatch.setattr(paths, "PARAMS", copy)
    return copy


def edit(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, 1))


def check() -> None:
    grid = read_profile("laptop")
    check_instances(expand("laptop", grid))
    check_inputs("laptop", grid)


def refused() -> str:
    with pytest.raises(ConfigError) as caught:
        check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("file", "before", "after", "words"),
    [
        (
            "profile/laptop.yaml",
            "num_samples: 384, num_steps: 16, num_token_steps: 8, micro_batch_size: 128, "
            "grid_images: 36, reconstructions: 384, nearest_samples: 384",
            "num_samples: 100, num_steps: 16, num_token_steps: 8, micro_batch_size: 128, "
            "grid_images: 36, reconstructions: 384, nearest_samples: 100",
            "num_samples = 100: must be at least 128",
        ),
        ("profile/laptop.yaml", "reconstructions: 384", "reconstructions: 100", "at least 128"),
        ("profile/laptop.yaml", "degraded_images: 512", "degraded_images: 100", "at least 128"),
        ("profile/laptop.yaml", "degraded_images: 512", "degraded_images: 5000", "at most"),
        (
            "profile/laptop.yaml",
            "train_images: 5000",
            "train_images: 127",
            "prepare_data.train_images = 127: must be at least 128, twice the feature dimension",
        ),
        ("profile/laptop.yaml", "num_images: 384", "num_images: 5000", "at most"),
        (
            "profile/laptop.yaml",
            "num_images: 384, batch_size: 128, scales: [0.25, 0.5, 0.75], "
            "intrinsic_dimension_images: [96, 192, 384]",
            "num_images: 64, batch_size: 64, scales: [0.5], intrinsic_dimension_images: [64]",
            "at least 128",
        ),
        (
            "profile/laptop.yaml",
            "reconstructions: 384",
            "reconstructions: 6001",
            "evaluate_generator.reconstructions = 6001: must be at most prepare_data.train_images",
        ),
        (
            "evaluation/in_domain.yaml",
            "allow_few_samples: false",
            "allow_few_samples: true",
            "allow_few_samples = True: must be false for profile laptop; only smoke may",
        ),
        ("profile/laptop.yaml", "monitor_images: 64", "monitor_images: 9999", "at most"),
        ("profile/laptop.yaml", "lpips: null", "lpips: weights/none.pth", "no such file"),
        ("arm/eq.yaml", "after_quantisation: false", "after_quantisation: true", "family 'kl'"),
        ("profile/laptop.yaml", "num_steps: 16", "num_steps: 1001", "at most num_timesteps 1000"),
        ("profile/laptop.yaml", "image_size: 32", "image_size: 24", "at least 32"),
        ("profile/laptop.yaml", "codebook_start: 225", "codebook_start: 9999", "less than steps"),
        ("profile/laptop.yaml", "learning_rate: 7.0e-4", "learning_rate: .inf", "finite"),
        ("backbone/Ti_2.yaml", "patch_size: 2", "patch_size: 3", "multiple of 12"),
        ("network/target_small.yaml", "role: target", "role: extractor", "must be 'target'"),
    ],
)
def test_a_section_that_another_contradicts_is_refused(
    params: Path, file: str, before: str, after: str, words: str
) -> None:
    edit(params / file, before, after)
    message = refused()
    assert words in message
    assert f"params/{file}" in message or "image_size" in message


def test_missing_weights_of_the_extractor_are_named_before_anything_runs() -> None:
    grid = read_profile("laptop", {"evaluation": "inception"})
    with pytest.raises(ConfigError, match=r"inception\.yaml: weights = .*: no such file"):
        check_inputs("laptop", grid)
