"""Clones; in one of them profile `smoke` is run once, without network, for all tests."""

import time
from pathlib import Path

import pytest
from clones import Clone, make_clone


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """A clone in which nothing has run."""
    return make_clone(tmp_path)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The clone in which profile `smoke` has run; a test that changes it changes it back."""
    clone = make_clone(tmp_path_factory.mktemp("smoke"))
    clone.use("smoke")
    start = time.monotonic()
    clone.log = clone.repro()
    print(f"\ndvc repro, profile smoke: {time.monotonic() - start:.0f} s")
    return clone
