import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from study import paths
from study.config import STAGES, Cell, ConfigError, choices
from study.grid import expand, manifest_file, read_profile, write_manifests

Edit = Callable[..., None]
PROFILE = "params/profile/smoke.yaml: grid"
SIT = {
    "generator": "sit",
    "autoencoder": "kl_small",
    "arms": ["plain", "eq"],
    "backbone": "Ti_2",
    "sampler": "heun",
    "scaling": "standardised",
}


@pytest.fixture
def grid() -> dict[str, Any]:
    return {
        "data": "shapes",
        "networks": "small",
        "evaluation": "few_samples",
        "tiers": [
            {
                "seeds": [0, 3],
                "autoencoders": {"kl_small": ["pretrained", "plain", "eq"], "taesd": ["eq"]},
                "generators": [SIT, {**SIT, "generator": "repa"}],
            }
        ],
    }


def test_every_profile_has_a_grid() -> None:
    for profile in choices("profile"):
        assert set(expand(profile, read_profile(profile))) - {"planned"} == {"profile", *STAGES}


def test_planned_tiers_stand_apart_and_nothing_of_them_runs(grid: dict[str, Any]) -> None:
    now = expand("smoke", grid)
    more = {**grid["tiers"][0], "seeds": [3, 4], "generators": [SIT]}
    later = expand("smoke", grid | {"planned": [more]})
    planned = later.pop("planned")
    assert later == now
    assert set(planned["train_generator"]) == {
        f"smoke-shapes-kl_small-{arm}-4-sit-standardised" for arm in ("plain", "eq")
    }
    every = expand("smoke", grid | {"tiers": [*grid["tiers"], more]})
    for stage, cells in planned.items():
        assert now[stage] | cells == every[stage]
    assert "pretrain_autoencoder" not in planned


def test_every_instance_is_named_by_its_cell(grid: dict[str, Any]) -> None:
    expanded = expand("smoke", grid)
    for stage in STAGES:
        for name, item in expanded[stage].items():
            choice = {key: value for key, value in item.items() if key != "source"}
            assert Cell(**choice).instance == name


def test_seeds_multiply_what_is_trained(grid: dict[str, Any]) -> None:
    counts = {
        stage: len(items) for stage, items in expand("smoke", grid).items() if stage in STAGES
    }
    assert counts == {
        "check_study": 1,
        "prepare_data": 1,
        "train_network": 4,
        "reference_statistics": 1,
        "pretrain_autoencoder": 1,
        "finetune_autoencoder": 8,
        "evaluate_autoencoder": 8,
        "cache_latents": 4,
        "train_generator": 8,
        "evaluate_generator": 8,
        "render_report": 1,
    }


def test_fine_tuning_starts_from_the_pretrained_autoencoder(grid: dict[str, Any]) -> None:
    items = expand("smoke", grid)["finetune_autoencoder"]
    origin = items["smoke-shapes-kl_small-eq-3"]["source"]
    # Once, for every seed.
    assert origin == "outputs/smoke/pretrain_autoencoder/smoke-shapes-kl_small-0"
    assert origin.rsplit("/", 1)[1] in expand("smoke", grid)["pretrain_autoencoder"]


def test_an_input_without_manifest_waits_for_the_check(grid: dict[str, Any], params: Path) -> None:
    expanded, check = expand("smoke", grid), "outputs/smoke/check_study/smoke"
    assert expanded["prepare_data"]["smoke-shapes"]["source"] == check
    assert expanded["finetune_autoencoder"]["smoke-shapes-taesd-eq-0"]["source"] == check


def test_an_input_with_manifest_waits_for_it(grid: dict[str, Any], params: Path) -> None:
    (params / "inputs").mkdir()
    (params / "inputs" / "autoencoder-taesd.json").write_text("{}")
    item = expand("smoke", grid)["finetune_autoencoder"]["smoke-shapes-taesd-eq-0"]
    assert item["source"] == "params/inputs/autoencoder-taesd.json"


def test_only_repa_waits_for_the_target_network(grid: dict[str, Any]) -> None:
    items = expand("smoke", grid)["train_generator"]
    name = "smoke-shapes-kl_small-eq-0-{}-standardised"
    target = "reports/smoke/networks/smoke-shapes-target"
    assert items[name.format("repa")]["source"] == target
    assert items[name.format("sit")]["source"] != target


def test_an_entry_given_twice_counts_once(grid: dict[str, Any]) -> None:
    grid["tiers"][0]["generators"].append(SIT)
    assert len(expand("smoke", grid)["train_generator"]) == 8


@pytest.mark.parametrize("change", [{"backbone": "S_2"}, {"sampler": "euler"}])
def test_two_entries_of_one_name_are_refused(grid: dict[str, Any], change: dict[str, str]) -> None:
    grid["tiers"][0]["generators"].append({**SIT, **change})
    with pytest.raises(ConfigError, match="two entries are smoke-shapes-kl_small-plain-0-sit"):
        expand("smoke", grid)


def test_data_and_evaluation_can_be_replaced() -> None:
    grid = read_profile("smoke", {"data": "image_folder", "evaluation": "in_domain"})
    assert (grid["data"], grid["evaluation"]) == ("image_folder", "in_domain")


def test_nothing_else_can_be_replaced() -> None:
    with pytest.raises(ConfigError, match="seeds=1: only data and evaluation can be replaced"):
        read_profile("smoke", {"seeds": "1"})


def test_an_unknown_profile_is_named() -> None:
    with pytest.raises(ConfigError, match=r"profile = 'nope': must be one of .*smoke"):
        read_profile("nope")


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["data"], "nope", ".data = 'nope': must be one of"),
        (["evaluation"], ["in_domain"], ".evaluation = ['in_domain']: must be one of"),
        (["seeds"], 0, ".seeds = 0: must be a list of whole numbers"),
        (["seeds"], [], ".seeds = []: must be a list"),
        (["seeds"], [-1], ".seeds = [-1]: must be a list"),
        (["seeds"], [True], ".seeds = [True]: must be a list"),
        (["autoencoders"], ["kl_small"], ".autoencoders = ['kl_small']: must be a mapping"),
        (["autoencoders"], {"nope": []}, ".autoencoders = 'nope': must be one of"),
        (["autoencoders", "kl_small"], "eq", ".autoencoders.kl_small = 'eq': must be a list"),
        (["autoencoders", "kl_small"], ["x"], ".autoencoders.kl_small = 'x': must be one of"),
        (["generators"], {}, ".generators = {}: must be a list"),
        (["generators", 1], {"a": 1}, ".generators[1] = {'a': 1}: must be a mapping with the keys"),
        (["generators", 0, "backbone"], "x", ".generators[0].backbone = 'x': must be one of"),
        (["generators", 0, "sampler"], None, ".generators[0].sampler = None: must be one of"),
        (["generators", 0, "autoencoder"], ["a"], ".generators[0].autoencoder = ['a']: must be"),
        (["generators", 0, "autoencoder"], "taesd", ".generators[0].autoencoder = 'taesd': must"),
        (["generators", 0, "arms"], ["x"], ".generators[0].arms = ['x']: must be a list of arms"),
        (["generators", 0, "arms"], [["eq"]], ".generators[0].arms = [['eq']]: must be a list"),
        (["generators", 0, "scaling"], "none", ".generators[0].scaling = 'none': must be one of"),
    ],
)
def test_a_bad_entry_is_named(
    params: Path, edit: Edit, keys: list[str | int], value: object, message: str
) -> None:
    edit(params / "profile" / "smoke.yaml", "grid", *keys, value=value)
    with pytest.raises(ConfigError) as caught:
        read_profile("smoke")
    assert str(caught.value).startswith(PROFILE + message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("extra", [{}, {"colour": "red"}])
def test_keys_of_the_grid_are_named(params: Path, edit: Edit, extra: dict[str, str]) -> None:
    edit(params / "profile" / "smoke.yaml", "grid", value=extra)
    with pytest.raises(ConfigError, match=r"grid = \[.*\]: must have the keys \['autoencoders'"):
        read_profile("smoke")


def test_a_local_input_gets_a_manifest_of_its_content(grid: dict[str, Any], params: Path) -> None:
    folder = paths.ROOT / "weights" / "taesd"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"1")
    write_manifests(grid)
    file = manifest_file("autoencoder", "taesd")
    before = file.read_text()
    assert [entry["size"] for entry in json.loads(before)["files"]] == [2, 1]
    write_manifests(grid)
    assert file.read_text() == before
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"2")
    write_manifests(grid)
    assert file.read_text() != before


@pytest.mark.usefixtures("params")
def test_an_input_that_is_gone_keeps_its_manifest(grid: dict[str, Any]) -> None:
    file = manifest_file("autoencoder", "taesd")
    file.parent.mkdir()
    file.write_text("kept")
    write_manifests(grid)
    assert file.read_text() == "kept"


def test_arms_of_different_seeds_stand_in_tiers(grid: dict[str, Any]) -> None:
    more = {"seeds": [0], "autoencoders": {"kl_small": ["plain", "eq_scale"]}, "generators": []}
    whole = expand("smoke", {**grid, "tiers": [*grid["tiers"], more]})
    first = expand("smoke", grid)
    for stage in ("finetune_autoencoder", "evaluate_autoencoder"):
        added = whole[stage].keys() - first[stage].keys()
        assert added == {"smoke-shapes-kl_small-eq_scale-0"}
    assert whole["train_generator"] == first["train_generator"]


@pytest.mark.parametrize(
    ("tiers", "message"),
    [
        (1, "tiers = 1: must be a list"),
        ([{"seeds": [0]}], "tiers = {'seeds': [0]}: must be mappings with the keys"),
        ([{"seeds": [], "autoencoders": {}, "generators": []}], "seeds = []: must be a list"),
    ],
)
def test_a_bad_tier_is_named(params: Path, edit: Edit, tiers: object, message: str) -> None:
    grid = {"data": "shapes", "networks": "small", "evaluation": "few_samples", "tiers": tiers}
    edit(params / "profile" / "smoke.yaml", "grid", value=grid)
    with pytest.raises(ConfigError) as caught:
        read_profile("smoke")
    assert str(caught.value).startswith(f"{PROFILE}.{message}")


def test_the_target_network_is_trained_only_for_repa(grid: dict[str, Any]) -> None:
    assert len(expand("smoke", grid)["train_network"]) == 4
    grid["tiers"][0]["generators"] = [SIT]
    alone = expand("smoke", grid)["train_network"]
    roles = {"extractor", "perceptual", "extractor_self_supervised"}
    assert {item["role"] for item in alone.values()} == roles


def test_the_second_extractor_measures_generators_beside_the_first(grid: dict[str, Any]) -> None:
    expanded = expand("smoke", grid)
    source = "reports/smoke/networks/smoke-shapes-extractor_self_supervised"
    assert source.rsplit("/", 1)[1] in expanded["train_network"]
    (real,) = expanded["reference_statistics"].values()
    assert (real["network"], real["source"]) == ("extractor_self_supervised_small", source)
    assert {item["source"] for item in expanded["evaluate_generator"].values()} == {source}


@pytest.mark.parametrize("change", [{"generators": []}, {"evaluation": "inception"}])
def test_without_generators_or_beside_inception_there_is_no_second_extractor(
    grid: dict[str, Any], change: dict[str, Any]
) -> None:
    for place in (grid, grid["tiers"][0]):
        place.update({key: value for key, value in change.items() if key in place})
    expanded, check = expand("smoke", grid), "outputs/smoke/check_study/smoke"
    roles = {item["role"] for item in expanded["train_network"].values()}
    assert "extractor_self_supervised" not in roles
    (real,) = expanded["reference_statistics"].values()
    assert (real["network"], real["source"]) == ("none", check)
    assert all(item["source"] == check for item in expanded["evaluate_generator"].values())


def test_networks_of_an_unknown_size_are_refused(params: Path, edit: Edit) -> None:
    edit(params / "profile" / "smoke.yaml", "grid", "networks", value="huge")
    with pytest.raises(ConfigError, match=f"{PROFILE}.networks = 'extractor_huge': must be one of"):
        read_profile("smoke")
