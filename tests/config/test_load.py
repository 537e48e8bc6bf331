import json
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import yaml

from study.config import (
    STAGES,
    ArmConfig,
    AutoencoderConfig,
    BackboneConfig,
    Cell,
    ConfigError,
    DataConfig,
    EvaluationConfig,
    GeneratorConfig,
    NetworkConfig,
    REPAConfig,
    Role,
    SamplerConfig,
    SiTConfig,
    choices,
    load,
    load_grid,
    load_group,
    plain,
)
from study.config.stages import FinetuneAutoencoder, PrepareData, TrainGenerator, TrainNetwork

GROUPS: dict[str, Any] = {
    "arm": ArmConfig,
    "autoencoder": AutoencoderConfig,
    "backbone": BackboneConfig,
    "data": DataConfig,
    "evaluation": EvaluationConfig,
    "generator": GeneratorConfig,
    "network": NetworkConfig,
    "sampler": SamplerConfig,
}
FILES = [(group, name) for group in GROUPS for name in choices(group)]
CELL = Cell(profile="smoke", data="shapes", autoencoder="kl_small", arm="eq", seed=0)
Edit = Callable[..., None]
GENERATOR = Cell(profile="smoke", generator="repa", backbone="Ti_2")


def message_of(schema: Any, cell: Cell) -> str:
    with pytest.raises(ConfigError) as caught:
        load(schema, cell)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("group", "name"), FILES)
def test_every_choice_composes_and_says_all_it_holds(group: str, name: str, params: Path) -> None:
    config: Any = load_group(GROUPS[group], group, name)
    written = yaml.safe_load((params / group / f"{name}.yaml").read_text())
    # Weights of others are an arm's only where it has some; all else must be said.
    optional = {"weights", "published_scale"} - set(written) if group == "arm" else set()
    assert {key: value for key, value in plain(config).items() if key not in optional} == written
    assert all(getattr(config, key) is None for key in optional)


@pytest.mark.parametrize("name", choices("network"))
def test_a_network_is_named_by_its_role_and_size(name: str) -> None:
    role, _, size = name.rpartition("_")
    assert load_group(NetworkConfig, "network", name).role.value == role
    assert {f"{each.value}_{size}" for each in Role} <= set(choices("network"))


@pytest.mark.parametrize("size", sorted({name.rpartition("_")[2] for name in choices("network")}))
def test_networks_of_a_size_share_neither_architecture_nor_seed(size: str) -> None:
    configs = [load_group(NetworkConfig, "network", f"{role.value}_{size}") for role in Role]
    assert len({config.architecture for config in configs}) == len(configs)
    assert len({config.seed for config in configs}) == len(configs)


def test_a_stage_has_its_groups_and_its_section() -> None:
    config = load(FinetuneAutoencoder, CELL)
    assert config.cell == CELL
    assert config.autoencoder.family.value == "kl"
    assert config.arm.equivariance_probability == 0.5
    assert config.finetune_autoencoder.steps == 4


def test_the_objective_decides_the_type() -> None:
    assert isinstance(load(TrainGenerator, GENERATOR).generator, REPAConfig)
    sit = load(TrainGenerator, Cell(profile="smoke", generator="sit", backbone="Ti_2"))
    assert type(sit.generator) is SiTConfig


def test_a_configuration_round_trips_through_plain(params: Path, edit: Edit) -> None:
    config = load(TrainGenerator, GENERATOR)
    values = json.loads(json.dumps(plain(config)))
    for name, section in (("generator", "repa"), ("backbone", "Ti_2")):
        (params / name / f"{section}.yaml").write_text(yaml.safe_dump(values[name]))
    edit(params / "profile" / "smoke.yaml", "train_generator", value=values["train_generator"])
    assert load(TrainGenerator, GENERATOR) == config


def test_plain_holds_no_enum_and_no_dataclass() -> None:
    def check(value: object) -> None:
        assert not isinstance(value, Enum)
        assert not hasattr(value, "__dataclass_fields__")
        for item in value.values() if isinstance(value, dict) else []:
            check(item)

    check(plain(load(FinetuneAutoencoder, CELL)))


def test_an_unknown_key_of_a_group_is_named(params: Path, edit: Edit) -> None:
    edit(params / "arm" / "eq.yaml", "probabilty", value=0.5)
    text = message_of(FinetuneAutoencoder, CELL)
    assert text.startswith("params/arm/eq.yaml: probabilty = 0.5: unknown; one of trainable, equiv")


def test_an_unknown_key_of_a_section_is_named(params: Path, edit: Edit) -> None:
    edit(params / "profile" / "smoke.yaml", "finetune_autoencoder", "lr", value=1)
    text = message_of(FinetuneAutoencoder, CELL)
    assert text.startswith(
        "params/profile/smoke.yaml: finetune_autoencoder.lr = 1: unknown; one of"
    )


@pytest.mark.parametrize("value", ["many", 2.5, True, [1], {"a": 1}])
def test_a_wrong_type_is_named(params: Path, edit: Edit, value: object) -> None:
    edit(params / "profile" / "smoke.yaml", "finetune_autoencoder", "steps", value=value)
    text = message_of(FinetuneAutoencoder, CELL)
    assert text.startswith(f"params/profile/smoke.yaml: finetune_autoencoder.steps = {value!r}: ")
    assert "Integer" in text or "int" in text


def test_a_wrong_choice_of_an_enum_is_named(params: Path, edit: Edit) -> None:
    edit(params / "arm" / "eq.yaml", "interpolation", value="nearest")
    text = message_of(FinetuneAutoencoder, CELL)
    assert text.startswith("params/arm/eq.yaml: interpolation = 'nearest': ")
    assert "bilinear" in text


def test_a_wrong_element_of_a_list_is_named(params: Path, edit: Edit) -> None:
    edit(params / "network" / "target_small.yaml", "widths", value=[8, "wide"])
    text = message_of(TrainNetwork, Cell(profile="smoke", data="shapes", network="target_small"))
    assert text.startswith("params/network/target_small.yaml: widths")
    assert "wide" in text


def test_a_missing_key_is_named(params: Path, edit: Edit) -> None:
    edit(params / "arm" / "eq.yaml", "scale", drop=True)
    text = message_of(FinetuneAutoencoder, CELL)
    assert text == "params/arm/eq.yaml: scale: missing; give a value"


def test_a_null_where_a_value_is_needed_is_named(params: Path, edit: Edit) -> None:
    edit(params / "arm" / "eq.yaml", "rotation", value=None)
    assert message_of(FinetuneAutoencoder, CELL).startswith("params/arm/eq.yaml: rotation = None: ")


def test_a_value_out_of_range_is_named(params: Path, edit: Edit) -> None:
    edit(params / "profile" / "smoke.yaml", "finetune_autoencoder", "steps", value=0)
    text = message_of(FinetuneAutoencoder, CELL)
    expected = "params/profile/smoke.yaml: finetune_autoencoder.steps = 0: must be at least 1"
    assert text == expected


def test_a_missing_section_is_named(params: Path, edit: Edit) -> None:
    edit(params / "profile" / "smoke.yaml", "prepare_data", drop=True)
    text = message_of(PrepareData, CELL)
    assert text == "params/profile/smoke.yaml: prepare_data: missing section"


def test_a_section_that_is_no_mapping_is_named(params: Path, edit: Edit) -> None:
    edit(params / "profile" / "smoke.yaml", "prepare_data", value=3)
    text = message_of(PrepareData, CELL)
    assert text == "params/profile/smoke.yaml: prepare_data: must be a mapping, is 3"


def test_an_unknown_objective_is_named(params: Path, edit: Edit) -> None:
    edit(params / "generator" / "repa.yaml", "objective", value="gan")
    text = message_of(TrainGenerator, GENERATOR)
    assert text.startswith("params/generator/repa.yaml: objective = 'gan': must be one of dit, sit")


def test_a_file_that_is_no_yaml_is_named(params: Path) -> None:
    (params / "arm" / "eq.yaml").write_text("scale: [")
    assert "arm" in message_of(FinetuneAutoencoder, CELL)


@pytest.mark.parametrize("schema", [STAGES["check_study"], PrepareData])
def test_an_unknown_profile_is_named(schema: Any) -> None:
    text = message_of(schema, Cell(profile="nope", data="shapes"))
    assert text.startswith("profile = 'nope': no file params/profile/nope.yaml; one of ")
    assert "smoke" in text


def test_an_unknown_choice_is_named() -> None:
    text = message_of(PrepareData, Cell(profile="smoke", data="nope"))
    assert text.startswith("data = 'nope': no file params/data/nope.yaml; one of ")


def test_a_missing_choice_is_named_as_the_command_wants_it() -> None:
    text = message_of(TrainNetwork, Cell(profile="smoke", data="shapes"))
    assert text == "network: missing; give network=NAME"


@pytest.mark.parametrize(
    ("content", "rule"),
    [("a: [", "not YAML"), ("- a", "must be a mapping"), (None, "no such file")],
)
def test_a_bad_grid_file_is_named(tmp_path: Path, content: str | None, rule: str) -> None:
    file = tmp_path / "grid.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=rf"grid\.yaml: {rule}"):
        load_grid(file)
