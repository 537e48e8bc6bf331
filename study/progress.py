"""What a terminal shows and a pipe does not: colour; a bar for a long loop, in a pipe lines."""

import os
import sys
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

_INTERVAL = 10.0  # seconds between lines; a faster loop prints none


def red(text: str) -> str:
    """The text for stderr, red on a terminal unless `NO_COLOR` is set."""
    plain = not sys.stderr.isatty() or bool(os.environ.get("NO_COLOR"))
    return text if plain else f"\033[31m{text}\033[0m"


def track(iterable: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    """Yield the items and show how many of `total` have been taken."""
    if sys.stderr.isatty():
        yield from tqdm(iterable, total=total, desc=description, leave=False)
    else:
        yield from _lines(iterable, total, description)


def _lines(iterable: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    start = last = monotonic()
    for done, item in enumerate(iterable):
        now = monotonic()
        if now - last >= _INTERVAL:
            last = now
            print(f"{description}: {done}/{total} after {now - start:.0f} s", file=sys.stderr)
        yield item
