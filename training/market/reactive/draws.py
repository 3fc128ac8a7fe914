"""Random draws of one integer state, compiled: uniform, exponential, geometric, Poisson and normal.

The stream is splitmix64 (Steele, Lea and Flood 2014), one word of state; exponentials come from the ziggurat of
Marsaglia and Tsang (2000) with 256 layers. `m` is a record with the field `rng` (uint64).
"""

import numpy as np

from training.market.queues import inlined, kernel

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11, _S8, _BYTE = (np.uint64(bits) for bits in (30, 27, 31, 11, 8, 255))
_UNIT = 1.0 / (1 << 53)

_EDGE, _AREA = 7.69711747013104972, 0.0039496598225815571993


def _ziggurat() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Layers of the exponential density: acceptance (256,) uint64, widths and heights (256,) float64."""
    scale = float(1 << 53)
    accept, width, height = np.zeros(256, np.uint64), np.zeros(256), np.zeros(256)
    edge = before = _EDGE
    base = _AREA / np.exp(-edge)
    accept[0], accept[1] = np.uint64(edge / base * scale), np.uint64(0)
    width[0], width[255] = base / scale, edge / scale
    height[0], height[255] = 1.0, np.exp(-edge)
    for i in range(254, 0, -1):
        edge = -np.log(_AREA / edge + np.exp(-edge))
        accept[i + 1] = np.uint64(edge / before * scale)
        before = edge
        height[i], width[i] = np.exp(-edge), edge / scale
    return accept, width, height


_ACCEPT, _WIDTH, _HEIGHT = _ziggurat()


@inlined
def next_word(m):
    """64 random bits."""
    state = m.rng + _GOLDEN
    m.rng = state
    word = (state ^ (state >> _S30)) * _MIX_1
    word = (word ^ (word >> _S27)) * _MIX_2
    return word ^ (word >> _S31)


@inlined
def uniform(m):
    """In [0, 1), 53 bits."""
    return np.float64(np.int64(next_word(m) >> _S11)) * _UNIT


@kernel
def _beyond_layer(m, layer, value):
    """The rare rest of an exponential draw: the tail, or the wedge of a layer; below 0: draw again."""
    if layer == 0:
        return _EDGE - np.log(1.0 - uniform(m))
    if (_HEIGHT[layer - 1] - _HEIGHT[layer]) * uniform(m) + _HEIGHT[layer] < np.exp(-value):
        return value
    return -1.0


@inlined
def exponential(m):
    """Mean 1."""
    while True:
        word = next_word(m)
        layer = np.int64(word & _BYTE)
        mantissa = word >> _S11
        value = np.float64(np.int64(mantissa)) * _WIDTH[layer]
        if mantissa < _ACCEPT[layer]:
            return value
        value = _beyond_layer(m, layer, value)
        if value >= 0.0:
            return value


@inlined
def size(m, scale, quantiles, level):
    """Lots of an order: geometric from 1 on (`geometric_scale`), or of `quantiles (L, Q) int32` where there are any."""
    if quantiles.shape[1] > 0:
        return np.int64(quantiles[level, np.int64(uniform(m) * quantiles.shape[1])])
    return 1 + np.int64(exponential(m) * scale)


def geometric_scale(mean: float) -> float:
    """What an exponential draw is multiplied with to give a geometric one with `mean`, less one."""
    return 0.0 if mean <= 1.0 else float(-1.0 / np.log1p(-1.0 / mean))


@kernel
def poisson(m, mean):
    """Arrivals of a unit-rate process within `mean`."""
    count, at = 0, exponential(m)
    while at < mean:
        count += 1
        at += exponential(m)
    return count


@kernel
def normal_pair(m):
    """Two independent standard normals (Box and Muller 1958)."""
    radius, angle = np.sqrt(2.0 * exponential(m)), 2.0 * np.pi * uniform(m)
    return radius * np.cos(angle), radius * np.sin(angle)


@kernel
def part(m, whole, parts):
    """Size of one of `parts` positive parts that sum to `whole`, all compositions alike.

    So large is any order of a queue of geometric orders, given their number and their lots in all.
    """
    if parts <= 1:
        return whole
    left, cuts, places = uniform(m), parts - 1, whole - 1
    size, alive = 1, 1.0
    while places > cuts:
        alive *= 1.0 - cuts / places
        if left >= alive:
            return size
        size += 1
        places -= 1
    return size
