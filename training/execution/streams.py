"""A seeded stream of random integers for compiled code: SplitMix64, its whole state one unsigned 64-bit integer.

Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators". The stream is the hash of a counter, so
that equal seeds give equal bytes on every machine, compiled or not.
"""

import numpy as np
from numpy.typing import NDArray

from training.market.queues import kernel

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(1 << 32)


def new_stream(rng: np.random.Generator) -> NDArray[np.uint64]:
    """A stream `(1,) uint64` that starts where `rng` says; moves `rng` on by one draw."""
    return rng.integers(0, 2**64, 1, dtype=np.uint64)


@kernel
def next_bits(stream):
    """64 random bits; moves `stream (1,) uint64` on."""
    stream[0] += _STEP
    bits = stream[0]
    bits = (bits ^ (bits >> np.uint64(30))) * _FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * _SECOND
    return bits ^ (bits >> np.uint64(31))


@kernel
def below(stream, bound):
    """Uniform on 0 .. bound - 1 for a bound of at most 2^32, without bias (Lemire 2019, algorithm 5)."""
    count = np.uint64(bound)
    while True:
        product = (next_bits(stream) >> np.uint64(32)) * count
        rest = product & _LOW
        if rest >= count or rest >= (_WORD - count) % count:
            return np.int64(product >> np.uint64(32))
