"""The default profile needs no network; `test_smoke` shows the same for every stage."""

import pytest
from clones import Clone


def test_the_default_profile_is_selected_and_checked_without_network(clone: Clone):
    assert clone.yaml("params/study.yaml")["profile"] == "laptop"
    clone.use("laptop")
    clone.run("python", "-m", "study.stages.check_study", "profile=laptop")
    assert (clone.root / "outputs/laptop/check_study/laptop/checked.txt").is_file()
    assert not clone.connections.exists(), clone.connections.read_text()


@pytest.mark.parametrize("call", ["connect", "connect_ex"])
def test_the_guard_notes_and_refuses_connections(clone: Clone, call: str):
    program = f"import socket; socket.socket().{call}(('192.0.2.1', 80))"
    assert "no network in tests" in clone.run("python", "-c", program, code=1)
    assert "192.0.2.1" in clone.connections.read_text()
