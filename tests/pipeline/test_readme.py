"""What the README tells a reader to type exists."""

import re

import pytest
from clones import ROOT

from study import __main__ as commands
from study.config import choices

TEXT = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def found(pattern: str) -> list[str]:
    names = sorted(set(re.findall(pattern, TEXT)))
    assert names, pattern
    return names


@pytest.mark.parametrize("target", found(r"(?:^|`)make ([a-z][\w-]*)"))
def test_a_make_target_exists(target: str):
    assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize("name", found(r"python -m study ([a-z][\w-]*)"))
def test_a_subcommand_exists(name: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        commands.main([name, "--help"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("profile", found(r"(?:study use |PROFILE=|params/profile/)([a-z]\w*)"))
def test_a_profile_exists(profile: str):
    assert profile in choices("profile")


@pytest.mark.parametrize("name", found(r"`((?:params|study|tests|notebooks|benchmarks)/[\w./]*)`"))
def test_a_file_or_folder_exists(name: str):
    assert (ROOT / name).exists()


def test_a_setting_of_one_parameter_names_one_that_exists():
    for file, keys in re.findall(r"-S '([\w/.]+):([\w.]+)=", TEXT):
        values = configuration(file)
        for key in keys.split("."):
            values = values[key]


def configuration(file: str) -> dict:
    import yaml

    return yaml.safe_load((ROOT / file).read_text())
