import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from study import paths
from study.autoencoders.models import Autoencoder
from study.config import ConfigError, choices
from study.grid import expand, read_profile
from study.preflight import check_grid, check_inputs, check_instances, select

Edit = Callable[..., None]


SIT = {
    "generator": "sit",
    "autoencoder": "kl_small",
    "arms": ["eq"],
    "backbone": "Ti_2",
    "sampler": "heun",
    "scaling": "standardised",
}


@pytest.fixture
def small(params: Path, edit: Edit) -> Path:
    """The profile `smoke` with one arm and no generator."""
    file = params / "profile" / "smoke.yaml"
    edit(file, "grid", "autoencoders", value={"kl_small": ["eq"]})
    edit(file, "grid", "generators", value=[])
    return file


def refused(message: str) -> None:
    """The profile `smoke` does not pass the check of its instances."""
    with pytest.raises(ConfigError) as caught:
        check_instances(expand("smoke", read_profile("smoke")))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("profile", choices("profile"))
def test_every_profile_passes(profile: str) -> None:
    check_instances(expand(profile, read_profile(profile)))


@pytest.mark.usefixtures("small")
def test_selecting_writes_the_grid_that_is_checked() -> None:
    assert select("smoke", {}) == paths.GRID
    written = yaml.safe_load(paths.GRID.read_text())
    assert written == expand("smoke", read_profile("smoke"))
    check_grid("smoke")


@pytest.mark.usefixtures("small")
def test_selecting_again_leaves_the_file_alone() -> None:
    select("smoke", {})
    before = paths.GRID.stat().st_mtime_ns
    select("smoke", {})
    assert paths.GRID.stat().st_mtime_ns == before


def test_a_bad_profile_writes_nothing(small: Path, params: Path, edit: Edit) -> None:
    edit(small, "prepare_data", "image_size", value=0)
    with pytest.raises(ConfigError, match=r"prepare_data\.image_size = 0"):
        select("smoke", {})
    assert not paths.GRID.exists()
    assert not (params / "inputs").exists()


@pytest.mark.usefixtures("small")
def test_another_profile_than_the_selected_one_is_refused() -> None:
    paths.GRID.write_text("profile: smoke\n")
    with pytest.raises(ConfigError, match=r"study\.yaml: profile = 'smoke': must be 'laptop'; run"):
        check_grid("laptop")


def test_a_broken_parameter_of_any_stage_is_found(small: Path, params: Path, edit: Edit) -> None:
    edit(small, "grid", "generators", value=[SIT])
    edit(params / "sampler" / "heun.yaml", "cfg_scale", value=0.0)
    refused("params/sampler/heun.yaml: cfg_scale = 0.0: must be at least 1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"sampler": "ddim"},
            "params/sampler/ddim.yaml: method = 'ddim': must be one of euler, heun, dopri5, euler",
        ),
        (
            {"generator": "dit"},
            "params/sampler/heun.yaml: method = 'heun': must be one of ddpm, ddim for generator",
        ),
        (
            {"autoencoder": "vq_small"},
            "params/profile/smoke.yaml: generator sit on family 'vq': must be vq for maskgit",
        ),
        (
            {"generator": "maskgit"},
            "params/profile/smoke.yaml: generator maskgit on family 'kl': must be vq for maskgit",
        ),
        (
            {"generator": "maskgit", "autoencoder": "vq_small"},
            "params/backbone/Ti_2.yaml: patch_size = 2: must be 1 for generator maskgit",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    small: Path, edit: Edit, change: dict[str, str], message: str
) -> None:
    entry = SIT | change
    edit(small, "grid", "autoencoders", value={entry["autoencoder"]: ["eq"]})
    edit(small, "grid", "generators", value=[entry])
    refused(message)


def test_repa_projects_from_a_block_there_is(small: Path, params: Path, edit: Edit) -> None:
    edit(small, "grid", "generators", value=[SIT | {"generator": "repa"}])
    edit(params / "backbone" / "Ti_2.yaml", "projection_depth", value=9)
    refused("params/backbone/Ti_2.yaml: projection_depth = 9: must be at most depth 4")


@pytest.fixture
def taesd(small: Path, edit: Edit, tiny: Autoencoder) -> Path:
    """The profile with published weights at weights/taesd."""
    edit(small, "grid", "autoencoders", value={"taesd": ["eq"]})
    tiny.save(paths.ROOT / "weights" / "taesd")
    return paths.ROOT / "weights" / "taesd"


@pytest.mark.usefixtures("taesd")
def test_published_weights_pass_and_get_a_manifest(params: Path) -> None:
    select("smoke", {})
    assert (params / "inputs" / "autoencoder-taesd.json").is_file()


def test_missing_weights_are_named(taesd: Path) -> None:
    shutil.rmtree(taesd)
    with pytest.raises(ConfigError, match="weights/taesd: no such folder"):
        select("smoke", {})


@pytest.mark.usefixtures("small")
def test_missing_data_are_named() -> None:
    with pytest.raises(ConfigError, match="data/image_folder: no such folder"):
        select("smoke", {"data": "image_folder"})


@pytest.mark.usefixtures("small")
def test_data_that_were_chosen_are_those_that_are_checked() -> None:
    grid = expand("smoke", read_profile("smoke", {"data": "parquet"}))
    paths.GRID.write_text(yaml.safe_dump(grid))
    with pytest.raises(ConfigError, match="data/parquet: no such folder"):
        check_grid("smoke")


def test_a_full_disk_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1e9))
    with pytest.raises(ConfigError, match=r"free disk space = 1\.0 GB: must be at least 2 GB"):
        check_inputs("smoke", read_profile("smoke"))
