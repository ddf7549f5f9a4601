"""Random numbers that are a function of what they are drawn for, not of when they are drawn.

A draw is a hash of the seed, its purpose and its keys (which day, which request, which place on
the page), so it is the same in whatever batch, partition or order it is made, and any one of a
billion can be made without the others. The hash is SplitMix64's finaliser (Steele, Lea and Flood,
"Fast splittable pseudorandom number generators", OOPSLA 2014) over the keys one after the other.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

Keys = Any
"""Integers: one number or an array; several of them broadcast against one another."""


def uniform(seed: int, purpose: str, *keys: Keys) -> np.ndarray:
    """Numbers in (0, 1), the ends left out, in the shape that the keys broadcast to."""
    bits = _hash(seed, purpose, *keys) >> np.uint64(11)
    return np.asarray((bits.astype(np.float64) + 0.5) * 2.0**-53)


def normal(seed: int, purpose: str, *keys: Keys) -> np.ndarray:
    """Numbers from N(0, 1), by Box and Muller's transformation."""
    radius = np.sqrt(-2 * np.log(uniform(seed, f"{purpose}, radius", *keys)))
    return np.asarray(radius * np.cos(2 * np.pi * uniform(seed, f"{purpose}, angle", *keys)))


def below(bound: Keys, seed: int, purpose: str, *keys: Keys) -> np.ndarray:
    """Whole numbers from 0 up to, but not including, `bound`."""
    return np.asarray(uniform(seed, purpose, *keys) * bound).astype(np.int64)


def _hash(seed: int, purpose: str, *keys: Keys) -> np.ndarray:
    start = hashlib.blake2b(f"{seed} {purpose}".encode(), digest_size=8).digest()
    state = np.array(int.from_bytes(start, "little"), dtype=np.uint64)
    with np.errstate(over="ignore"):  # it is meant to wrap around
        for key in keys:
            number = np.asarray(key, dtype=np.int64).astype(np.uint64)
            state = _mix(state + (number + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
    return state


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))
