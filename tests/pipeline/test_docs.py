"""What README and docs tell a reader to type or to open exists; so do the examples of the help."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from clones import ROOT

from study import __main__ as commands
from study.config import choices

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "reports").glob("*.md")),
    *sorted((ROOT / "reports" / "notes").glob("*.md")),
]
TEXT = "\n".join(page.read_text() for page in PAGES)
MAKEFILE = (ROOT / "Makefile").read_text()
SUBCOMMANDS = re.findall(r'"([a-z-]+)",\n\s+_[a-z]+,', (ROOT / "study/__main__.py").read_text())
SUBCOMMANDS += re.findall(r'"([a-z-]+)",\n\s+_[a-z]+,', (ROOT / "study/commands.py").read_text())


def found(pattern: str) -> list[str]:
    names = sorted(set(re.findall(pattern, TEXT, re.MULTILINE)))
    assert names, pattern
    return names


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in kept}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("target", found(r"(?:^|`|&& )make ([a-z][\w-]*)"))
def test_a_make_target_exists(target: str):
    assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize("line", found(r"python -m study ([a-z][^`\n&;|#…]*)"))
def test_a_command_of_the_study_is_understood(line: str, capsys: pytest.CaptureFixture[str]):
    # A name alone is a subcommand that is spoken of.
    if line.strip() not in SUBCOMMANDS:
        commands._parser().parse_args(shlex.split(line))


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_the_help_of_a_subcommand_has_examples_that_are_understood(
    name: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as stopped:
        commands.main([name, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    examples = re.findall(r"^  python -m study (.+)$", text, re.MULTILINE)
    assert examples
    assert "exit codes" in text
    for example in examples:
        words = shlex.split(example)
        assert words[0] == name
        commands._parser().parse_args(words)


def test_the_help_lists_every_subcommand_and_the_exit_codes(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        commands.main(["--help"])
    text = capsys.readouterr().out
    assert len(SUBCOMMANDS) == 10
    for part in (*SUBCOMMANDS, "exit codes:", "  0 ", "  1 ", "  2 ", "  143 ", "examples:"):
        assert part in text


def test_wrong_usage_exits_2(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        commands.main(["fly"])
    assert stopped.value.code == 2


@pytest.mark.parametrize("name", found(r"\bdvc ([a-z]+(?: (?:show|diff|run|list))?)\b"))
def test_a_command_of_dvc_exists(name: str):
    from dvc.cli.parser import get_main_parser

    known = "repro status commit gc metrics plots params exp push pull add lock checkout dag"
    known += " config remote"
    if name.split()[0] not in known.split():
        assert name in ("allocation", "or")
        return
    with pytest.raises(SystemExit) as stopped:
        get_main_parser().parse_args([*name.split(), "--help"])
    assert stopped.value.code == 0


@pytest.mark.parametrize("profile", found(r"(?:study use |PROFILE=|params/profile/)([a-z]\w*)"))
def test_a_profile_exists(profile: str):
    assert profile in choices("profile")


@pytest.mark.parametrize(
    "name", found(r"`((?:params|study|tests|notebooks|benchmarks|docs)/[\w./]*)`(?!:)")
)
def test_a_file_or_folder_exists(name: str):
    assert (ROOT / name).exists()


def test_a_setting_of_one_parameter_names_one_that_exists():
    settings = re.findall(r"-S '([\w/.]+):([\w.]+)=", TEXT)
    assert settings
    for file, keys in settings:
        values = yaml.safe_load((ROOT / file).read_text())
        for key in keys.split("."):
            values = values[key]


def test_messages_in_the_page_of_errors_are_those_of_the_code():
    code = "\n".join(path.read_text() for path in (ROOT / "study").rglob("*.py"))
    code = re.sub(r'"\n\s+f?"', "", code)
    page = (ROOT / "docs" / "errors.md").read_text()
    shown = [cell for cell in re.findall(r"^\| (`.+?) \|", page, re.MULTILINE)]
    assert len(shown) > 8
    foreign = ("ERROR: Unable", "reproduction failed", "CUDA out of memory", "No space left")
    foreign = (*foreign, "RWLock-file", "'dvc.lock' is invalid", "'./dvc.lock' validation failed")
    for cell in shown:
        for message in re.findall(r"`([^`]+)`", cell):
            if not any(part in message for part in foreign):
                parts = re.split(r"…|: |; |process|PROFILE", message)
                words = [part.strip(" ;:") for part in parts if len(part) > 8]
                assert all(part in code for part in words), words


def test_the_citation_is_complete():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "license"} <= citation.keys()
    assert "2502.09509" in str(citation["references"])
