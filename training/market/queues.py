"""First-in-first-out queues by price: linked lists in one array of 16-byte nodes, and bits that tell which prices hold.

A level is a node too, the start and the end of its ring: joining and leaving take no branch. Prices are counted from
the best end of their side (`key`: asks from the lowest price up, bids from the highest down), so that one search, for
the smallest occupied key, serves both. Three layers of 64-bit words hold the occupied keys of a side; finding the next
one costs a few words however far it is.

Functions take the arrays that they touch; `state` is the int64 array whose places this file names first.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

NODE_DTYPE = np.dtype(
    [
        ("prev", np.int32),
        ("next", np.int32),
        ("lots", np.int32),  # of an order; of a level, of all its orders
        (
            "home",
            np.int32,
        ),  # level of an order; ANONYMOUS_BIT where it stands for lots of no known one
    ]
)
ANONYMOUS_BIT = 1 << 30

BEST, OFFSET_1, OFFSET_2, STRIDE, SPAN = 0, 2, 3, 4, 5
"""Places in `state`: best key by side (NONE: nothing rests); where the layers of bits lie; prices held."""
NONE = 1 << 40

_OPTIONS: dict[str, Any] = {"cache": True, "_nrt": False}
kernel = njit(**_OPTIONS)
"""Compiles a function that allocates nothing, without numba's counting of references to the arrays that it is handed:
that counting cost two thirds of the time of a message. Whoever calls it from Python holds the arrays meanwhile."""
inlined = njit(**_OPTIONS, forceinline=True)
"""The same, and always made part of its caller."""

_ONE, _ALL, _LOW_6 = np.uint64(1), np.uint64(0xFFFFFFFFFFFFFFFF), np.int64(63)


def bit_layout(span: int) -> tuple[int, int, int]:
    """Offsets of the second and third layer, and words a side, for `span` keys."""
    first = span // 64 + 1
    second = first // 64 + 1
    return first, first + second, first + second + second // 64 + 1


@intrinsic
def trailing_zeros(typingctx, value):
    """Place of the lowest set bit of a word that is not 0 (one instruction; llvm.cttz)."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


@inlined
def bit_of(key):
    """The bit of a key in its word."""
    return _ONE << np.uint64(key & _LOW_6)


@kernel
def first_from(bits, state, side, key):
    """Smallest occupied key of a side that is not below `key`; NONE where there is none."""
    base = side * state[STRIDE]
    if key >= state[SPAN]:
        return np.int64(NONE)
    word = bits[base + (key >> 6)] & (_ALL << np.uint64(key & _LOW_6))
    if word:
        return (key >> 6 << 6) + np.int64(trailing_zeros(word))
    group = (key >> 6) + 1
    layer = base + state[OFFSET_1]
    word = bits[layer + (group >> 6)] & (_ALL << np.uint64(group & _LOW_6))
    if not word:
        block = (group >> 6) + 1
        top, last = base + state[OFFSET_2] + (block >> 6), base + state[STRIDE]
        if top >= last:
            return np.int64(NONE)
        word = bits[top] & (_ALL << np.uint64(block & _LOW_6))
        while not word:
            top += 1
            if top >= last:
                return np.int64(NONE)
            word = bits[top]
        block = (top - base - state[OFFSET_2] << 6) + np.int64(trailing_zeros(word))
        word = bits[layer + block]
        group = block << 6
    group = (group >> 6 << 6) + np.int64(trailing_zeros(word))
    return (group << 6) + np.int64(trailing_zeros(bits[base + group]))


@inlined
def occupy(bits, state, side, key):
    """A key that held nothing holds lots now."""
    base = side * state[STRIDE]
    word = base + (key >> 6)
    if not bits[word]:
        above = base + state[OFFSET_1] + (key >> 12)
        if not bits[above]:
            bits[base + state[OFFSET_2] + (key >> 18)] |= bit_of(key >> 12)
        bits[above] |= bit_of(key >> 6)
    bits[word] |= bit_of(key)
    if key < state[BEST + side]:
        state[BEST + side] = key


@inlined
def vacate(bits, state, side, key):
    """A key that held lots holds nothing any more."""
    base = side * state[STRIDE]
    word = base + (key >> 6)
    left = bits[word] & ~bit_of(key)
    bits[word] = left
    if not left:
        above = base + state[OFFSET_1] + (key >> 12)
        bits[above] &= ~bit_of(key >> 6)
        if not bits[above]:
            bits[base + state[OFFSET_2] + (key >> 18)] &= ~bit_of(key >> 12)
    if key == state[BEST + side]:
        state[BEST + side] = first_from(bits, state, side, key)


@inlined
def join(nodes, bits, state, level, side, key, order, lots, home):
    """An order joins the back of a level."""
    tail = np.uint32(nodes[level].prev)  # unsigned: an index that may be negative costs a comparison
    nodes[tail].next = order
    nodes[order].prev = tail
    nodes[order].next = level
    nodes[order].lots = lots
    nodes[order].home = home
    nodes[level].prev = order
    before = nodes[level].lots
    nodes[level].lots = before + lots
    if before == 0:
        occupy(bits, state, side, key)


@inlined
def leave(nodes, bits, state, level, side, key, order):
    """An order leaves its level with all its lots."""
    before, after, lots = np.uint32(nodes[order].prev), np.uint32(nodes[order].next), nodes[order].lots
    nodes[before].next = after
    nodes[after].prev = before
    nodes[order].lots = 0
    left = nodes[level].lots - lots
    nodes[level].lots = left
    if left == 0:
        vacate(bits, state, side, key)


@inlined
def lessen(nodes, bits, state, level, side, key, order, lots):
    """An order loses some lots, or all of them and its place."""
    have = nodes[order].lots
    if have <= lots:
        leave(nodes, bits, state, level, side, key, order)
    else:
        nodes[order].lots = have - lots
        nodes[level].lots -= lots
