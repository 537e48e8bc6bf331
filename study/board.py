"""What a running grid shows: a table on a terminal, a line an event in a pipe."""

import sys
import time
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from study.schedule import Job, State

if TYPE_CHECKING:
    from rich.table import Table

_LONGEST = 100
"""Characters of a reason."""


class Board:
    """Shows jobs; a context in which a terminal holds the table."""

    def __init__(self) -> None:
        self.live = None
        self.total = 0
        self.settled = 0
        self.jobs: list[Job] = []

    def __enter__(self) -> "Board":
        """Open the table on a terminal."""
        if sys.stdout.isatty():
            from rich.live import Live

            self.live = Live(refresh_per_second=2, transient=True)
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        if self.live is not None:
            self.live.stop()

    def report(self, job: Job) -> None:
        """An instance has begun or ended."""
        print(self._line(job), flush=True)

    def tick(self, jobs: Iterable[Job]) -> None:
        """Draw the table anew."""
        self.jobs = list(jobs)
        if self.live is not None:
            self.live.update(self._table())

    def count(self) -> str:
        """How many have come to what end."""
        states = Counter(job.state for job in self.jobs)
        return ", ".join(f"{states[state]} {state.value}" for state in State if states[state])

    def _line(self, job: Job) -> str:
        match job.state:
            case State.running:
                again = f", attempt {job.attempts + 1}" if job.attempts else ""
                return f"start   {job.name} ({job.place}{again})"
            case State.done:
                return f"done    {job.name} {job.seconds:.0f} s"
            case State.waiting:
                return f"retry   {job.name} after {job.seconds:.0f} s: {job.reason[:_LONGEST]}"
            case _:
                return f"{job.state.value:8}{job.name} after {job.seconds:.0f} s: {job.reason}"

    def _table(self) -> "Table":
        from rich.table import Table

        table = Table(title=self.count(), title_justify="left", box=None, pad_edge=False)
        for title in ("where", "instance", "time"):
            table.add_column(title, justify="right" if title == "time" else "left")
        now = time.monotonic()
        for job in self.jobs:
            if job.state is State.running:
                table.add_row(job.place, job.name, f"{now - job.began:.0f} s")
        return table
