"""Whether an instance that runs again comes out as `dvc.lock` has it, which others were made from.

Bits may depend on the kind of GPU. Where an output that finished instances read is made again on
another kind, DVC takes all of those to be out of date.
"""

import fcntl
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from study import paths

# Ten times faster than `load_grid`, and run while instances wait; 1e-6 stays text, on both sides.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FILE = "dvc.lock"
_INPUTS = ("cmd", "deps", "params")

Items = set[tuple[str, str]]
"""Paths with their digests."""


class Recorded:
    """Entries of `dvc.lock` at the time when this is made."""

    def __init__(self, others: Collection[str]) -> None:
        """Read them.

        Args:
            others: instances that are not to run; those that have an entry are finished.
        """
        file = paths.ROOT / _FILE
        self._text = file.read_text() if file.is_file() else ""
        self._stages = _stages(self._text)
        finished = sorted(self._stages.keys() & others)
        self._read = {name: _items(self._stages[name], "deps") for name in finished}

    def refusal(self, name: str) -> str:
        """Why nothing can go on from an instance that has just ended; empty where it can.

        That is where the instance had an entry of the same command, dependencies and parameters,
        but for an output that a finished instance has read. The entry is put back, so that the
        instance counts as out of date, and not those. Nothing is told with `core.hardlink_lock`.
        """
        old = self._stages.get(name)
        made = _items(old, "outs") if old else set()
        if old is None or all(made.isdisjoint(read) for read in self._read.values()):
            return ""
        with _locked() as held:
            text = (paths.ROOT / _FILE).read_text() if held else ""
            new = _stages(text).get(name)
            if new is None or any(old.get(key) != new.get(key) for key in _INPUTS):
                return ""
            lost = made - _items(new, "outs")
            readers = {other: found for other, read in self._read.items() if (found := read & lost)}
            if not readers:
                return ""
            self._put_back(name, text)
        reader, found = next(iter(readers.items()))
        return (
            f"{min(found)[0]}: other content than in {_FILE}, from the same inputs; "
            f"{len(readers)} finished instances, such as {reader}, were made from the former: run "
            "it where they ran, or give --replace and run them again"
        )

    def _put_back(self, name: str, text: str) -> None:
        # The lines of an entry as DVC writes them.
        entry = re.compile(rf"^  {re.escape(name)}:\n(?:    .*\n)+", re.M)
        former = entry.search(self._text)
        assert former is not None
        partial = paths.ROOT / f"{_FILE}.partial"
        partial.write_text(entry.sub(lambda found: former[0], text))
        partial.replace(paths.ROOT / _FILE)


@contextmanager
def _locked() -> Iterator[bool]:
    """Hold what DVC holds while it reads and writes `dvc.lock`, once it is free.

    Says whether it is held: not with `core.hardlink_lock`, where the file is a link to another, or
    is not there.
    """
    file = paths.ROOT / ".dvc" / "tmp" / "lock"
    if not file.is_file() or file.stat().st_nlink > 1:
        yield False
        return
    with file.open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield True


def _stages(text: str) -> dict[str, dict[str, Any]]:
    return (yaml.load(text, _LOADER) or {}).get("stages", {})


def _items(entry: dict[str, Any], key: str) -> Items:
    return {(item["path"], item["md5"]) for item in entry.get(key, [])}
