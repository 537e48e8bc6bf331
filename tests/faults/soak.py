"""Kill every stage of the pipeline at random, again and again; compare with an undisturbed run.

A command: `python tests/faults/soak.py --kills 100` (see `make soak`).
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from killed_runs import disturbed, undisturbed


def soak(folder: Path, kills: int, seed: int, *, long: bool = False) -> bool:
    """Kill one run and leave another alone; says how it went, and whether results are the same."""
    began = time.monotonic()
    for name in ("a", "b"):
        (folder / name).mkdir()
    expected, longest = undisturbed(folder / "a", long=long)
    print(f"undisturbed: {time.monotonic() - began:.0f} s", flush=True)
    told, found = disturbed(folder / "b", kills, seed, longest, long=long)
    other = sorted(n for n in expected | found if expected.get(n) != found.get(n))
    print(f"kills: {dict(told.kills)}\nresumed: {dict(told.resumed)}\nmended: {dict(told.mended)}")
    print(
        f"seed {seed}: {told.kills.total()} kills, {time.monotonic() - began:.0f} s; "
        f"{len(expected)} results, {f'DIFFERENT: {other}' if other else 'all identical'}",
        flush=True,
    )
    return not other


def main() -> int:
    """Soak once and, until a time has passed, again with further seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--long", action="store_true", help="loops of seconds")
    options = parser.parse_args()
    end, seed, same = time.monotonic() + 60 * options.minutes, options.seed, True
    while seed == options.seed or time.monotonic() < end:
        with tempfile.TemporaryDirectory() as name:
            same &= soak(Path(name), options.kills, seed, long=options.long)
        seed += 1
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
