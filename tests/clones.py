"""Temporary clones of the repository, where DVC can run without touching this one."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]

# What would reach into the clone from outside, or lead out of it.
_FOREIGN = ("DVC_", "GIT_", "STUDY_", "MLFLOW_", "PYTHONSAFEPATH", "PYTHONPATH")
_NO_NETWORK = '''\
"""Refuse and note every connection but those of this machine's own sockets."""

import os
import socket


def _refuse(address):
    with open(os.environ["STUDY_TEST_CONNECTIONS"], "a") as file:
        file.write(f"{address}\\n")
    raise OSError(f"no network in tests: {address}")


def _guarded(function):
    def connect(self, address):
        return function(self, address) if self.family == socket.AF_UNIX else _refuse(address)

    return connect


socket.socket.connect = _guarded(socket.socket.connect)
socket.socket.connect_ex = _guarded(socket.socket.connect_ex)
socket.getaddrinfo = lambda host, *others, **options: _refuse(host)
'''


@dataclass
class Clone:
    """A copy of the repository with its own history, cache and DVC settings."""

    root: Path
    environment: dict[str, str]
    connections: Path
    """Addresses that were tried, one a line."""
    log: str = ""
    """What the first `dvc repro` printed."""

    def run(self, *command: str, code: int = 0) -> str:
        """Output of a command whose exit code must be `code`; `python` is that of the tests."""
        done = self.attempt(*command)
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def attempt(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command that may fail."""
        return subprocess.run(
            command,
            cwd=self.root,
            env=self.environment,
            text=True,
            capture_output=True,
            timeout=900,
        )

    def use(self, *choice: str) -> str:
        return self.run("python", "-m", "study", "use", *choice)

    def repro(self, *options: str) -> str:
        return self.run("python", "-m", "dvc", "repro", *options)

    def yaml(self, name: str) -> dict[str, Any]:
        return yaml.safe_load((self.root / name).read_text())

    def outputs(self) -> list[Path]:
        """Everything that finished stages of the selected profile have made, by `dvc.lock`."""
        # The lock file may hold entries of other profiles, whose outputs are not in the clone.
        entries, here = self.yaml("dvc.lock")["stages"], self.instances()
        stages = (entry for name, entry in entries.items() if name in here)
        return [self.root / out["path"] for stage in stages for out in stage["outs"]]

    def instances(self) -> set[str]:
        """Stage instances of the selected profile, as DVC names them."""
        grid = self.yaml("params/study.yaml")
        stages = ((name, some) for name, some in grid.items() if isinstance(some, dict))
        return {f"{name}@{instance}" for name, some in stages for instance in some}


def run_stages(log: str) -> set[str]:
    """Instances that a `dvc repro` ran, or would run."""
    return set(re.findall(r"^Running stage '(.+)':$", log, re.MULTILINE))


def restored_stages(log: str) -> set[str]:
    """Instances whose outputs a `dvc repro` took from the cache."""
    return set(re.findall(r"^Stage '(.+)' is cached", log, re.MULTILINE))


def make_clone(folder: Path) -> Clone:
    """Copy what git would track, into a repository of its own."""
    root, connections = folder / "clone", folder / "connections.txt"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    (folder / "guard").mkdir()
    (folder / "guard" / "sitecustomize.py").write_text(_NO_NETWORK)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN)}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}",
        "PYTHONPATH": str(folder / "guard"),
        "STUDY_TEST_CONNECTIONS": str(connections),
        "DO_NOT_TRACK": "true",
        "DVC_NO_ANALYTICS": "1",
        "DVC_GLOBAL_CONFIG_DIR": str(folder / "dvc-global"),
        "DVC_SYSTEM_CONFIG_DIR": str(folder / "dvc-system"),
        "DVC_SITE_CACHE_DIR": str(folder / "dvc-site"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
    }
    clone = Clone(root, environment, connections)
    author = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    clone.run("git", "init", "--quiet")
    clone.run("git", "add", "--all")
    clone.run("git", *author, "commit", "--quiet", "--message=clone")
    return clone
