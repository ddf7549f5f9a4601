"""Random numbers as a pure function of seed, purpose and keys, independent of the order of calls.

A draw is a hash of the seed, its purpose and its keys (such as day, request and position on the
page). So it is the same in every batch, partition and order, and one of a billion draws can be
computed without the others. The hash applies SplitMix64's finaliser (Steele, Lea and Flood, "Fast
splittable pseudorandom number generators", OOPSLA 2014) to the keys one after another.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

Keys = Any
"""Integers: one number or an array. Several keys are broadcast against each other."""


def uniform(seed: int, purpose: str, *keys: Keys) -> np.ndarray:
    """Uniform numbers in the open interval (0, 1), in the shape that the keys broadcast to."""
    bits = _hash(seed, purpose, *keys) >> np.uint64(11)
    return np.asarray((bits.astype(np.float64) + 0.5) * 2.0**-53)


def normal(seed: int, purpose: str, *keys: Keys) -> np.ndarray:
    """Numbers from N(0, 1), by the Box-Muller transform."""
    radius = np.sqrt(-2 * np.log(uniform(seed, f"{purpose}, radius", *keys)))
    return np.asarray(radius * np.cos(2 * np.pi * uniform(seed, f"{purpose}, angle", *keys)))


def below(bound: Keys, seed: int, purpose: str, *keys: Keys) -> np.ndarray:
    """Uniform integers in [0, bound)."""
    return np.asarray(uniform(seed, purpose, *keys) * bound).astype(np.int64)


def _hash(seed: int, purpose: str, *keys: Keys) -> np.ndarray:
    start = hashlib.blake2b(f"{seed} {purpose}".encode(), digest_size=8).digest()
    state = np.array(int.from_bytes(start, "little"), dtype=np.uint64)
    with np.errstate(over="ignore"):  # overflow is intended: arithmetic modulo 2^64
        for key in keys:
            number = np.asarray(key, dtype=np.int64).astype(np.uint64)
            state = _mix(state + (number + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
    return state


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))
