"""Seeds for every purpose from the seed of a cell, so that no two purposes share random numbers.

Arms, generators and processes that must draw the same numbers derive the same seed; what an arm
consumes never shifts what another purpose draws.
"""

import hashlib


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for `purpose`, for example `derive(0, "noise", step)`."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
