"""File systems on which writing fails; they need the right to mount."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Mount = Callable[..., None]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mount something on a folder until the test ends; skips where that is not allowed."""
    mounted: list[Path] = []

    def run(folder: Path, *arguments: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            command = ["mount", *arguments, str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("no command mount")
        if done.returncode:
            pytest.skip(f"mount is not allowed here: {done.stderr.strip()}")
        mounted.append(folder)

    yield run
    for folder in reversed(mounted):
        # Lazily: a library may still hold a file open.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path, mount: Mount) -> Path:
    """A folder on a disk of 4 MiB."""
    mount(tmp_path / "disk", "-t", "tmpfs", "-o", "size=4m", "tmpfs")
    return tmp_path / "disk"
