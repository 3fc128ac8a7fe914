"""Compiled translation of silver events into messages: exactly what the book keeps of each, by order and by price.

It follows `feature_repo.pipeline.book_kernel` event by event (what is whole, what is unknown, which lots belong to no
known order), so that the messages give the same book. `pack` is the only entry.
"""

from enum import IntEnum, IntFlag

import numpy as np
from numba import njit

from feature_repo.ticks.schema import Flag, Kind, Side


class MessageKind(IntEnum):
    """What a message does to the queues (stored as uint8)."""

    ADD = 0  # an order joins the back of its level
    CUT = 1  # `size` lots of an order leave; FINAL: all that is left of it
    EXECUTE = 2  # an aggressor takes `size` lots, of `order` in history
    REPLACE = 3  # an order moves to the back of `level` with `size` lots
    PRINT = 4  # a trade that met no order that is known
    SHRINK = 5  # `size` lots of known orders leave a level, nobody says whose
    CLEAR = 6  # the book is unknown from here on
    WHOLE = 7  # the book is known again
    HALT = 8
    RESUME = 9
    NOTE = 10  # the book stands as it is: the end of a vendor's message that changed nothing


class MessageFlag(IntFlag):
    """Bits of a message's flags (uint8)."""

    FINAL = 1  # history knows no lot of this order after the message
    FRONT = 2  # of EXECUTE: the order was the first of the best level in history
    CROSSING = 4  # of ADD and REPLACE: history's own book is crossed or locked by it
    LOOSE = 8  # of an order that the vendor's depth denied lots of: what it lacks comes from the back of its level
    SHOWN = 16  # the visible book follows
    ANONYMOUS = 32  # of ADD: lots that belong to no known order
    HIDDEN = 64  # of PRINT: the execution met hidden liquidity


MOST_LOTS = (1 << 30) - 1
"""Most lots at one price in history, and most that own orders may ask for in all: together they fit an int32."""
MARGIN = 4096
"""Ticks beyond the day's prices where own orders may rest."""
SPARE_PAGES = 64
"""Pages of 64 prices for own orders where no order of the day rests."""

# Places in the report: counts as PackCounts has them, then what was made, then what went wrong.
UNKNOWN, OVERSIZED, UNWHOLE, QUOTES, DOUBTFUL, PAIRED = range(6)
MADE, PAGES_MADE, SLOTS_MADE, ERROR, ERROR_ROW, ERROR_VALUE = range(6, 12)
COUNTS = 12
UNKNOWN_ORDER, NEGATIVE_SIZE, TOO_LARGE, TOO_HEAVY, NOT_BY_ORDER = 1, 2, 3, 4, 5
"""Errors."""

_ADD, _CUT, _EXECUTE, _REPLACE = (int(MessageKind(k)) for k in range(4))
_PRINT, _SHRINK, _CLEAR, _WHOLE, _HALT, _RESUME, _NOTE = (int(MessageKind(k)) for k in range(4, 11))
_FINAL, _LOOSE, _SHOWN = int(MessageFlag.FINAL), int(MessageFlag.LOOSE), int(MessageFlag.SHOWN)
_ANONYMOUS, _HIDDEN = int(MessageFlag.ANONYMOUS), int(MessageFlag.HIDDEN)
_E_ADD, _E_CANCEL, _E_REPLACE, _E_TRADE = int(Kind.ADD), int(Kind.CANCEL), int(Kind.REPLACE), int(Kind.TRADE)
_E_QUOTE, _E_LEVEL, _E_HALT, _E_CLEAR = int(Kind.QUOTE), int(Kind.LEVEL), int(Kind.HALT), int(Kind.CLEAR)
_E_DEPTH = int(Kind.DEPTH)
_LAST, _E_HIDDEN, _GAP = int(Flag.LAST), int(Flag.HIDDEN), int(Flag.GAP)
_BUY = int(Side.BUY)
_MOST_PRICE = np.iinfo(np.int32).max
_NO_BOOK, _OPENING, _STANDS, _HOLE = 0, 1, 2, 3

# Columns of the table of orders, one row an id; those of anonymous orders follow in the same table.
_SLOT, _SIDE, _PRICE, _LOTS, _BORN, _EPOCH, _OLDER = range(7)
# Columns of the table of levels.
_TOTAL, _KNOWN, _DOUBT, _NEWEST = range(4)
# Places in `now`.
_STANDING, _PENDING, _CLEARED, _EMPTIED, _HALTED, _AGE, _FREE, _ANON, _LOW, _SPAN, _ROW = range(11)
_PRINT_NS, _PRINT_PRICE, _PRINT_SIDE, _PRINT_LEFT = range(11, 15)  # the last print, and its lots of no order so far


@njit(cache=True)
def pack(columns, ids, low, span, lenient, pages, out, report):
    """Write the messages of `columns` to `out`, and what was made and what went wrong to `report`."""
    ts_ns, kind, side, price, size, order, flags, dense = columns
    now = np.zeros(15, np.int64)
    now[_EMPTIED], now[_AGE], now[_ANON], now[_LOW], now[_SPAN] = 1, 1, ids, low, span
    orders = np.zeros((ids + len(ts_ns), 7), np.int64)
    free = np.zeros(ids + len(ts_ns), np.int32)
    levels = np.zeros((64, 4), np.int64)
    for i in range(len(ts_ns)):
        if 64 * (report[PAGES_MADE] + 1) > len(levels):
            levels = np.concatenate((levels, np.zeros_like(levels)))
        what, by, now[_ROW] = kind[i], order[i], i
        if now[_PENDING] and not now[_EMPTIED] and (ts_ns[i] > now[_CLEARED] or what == _E_TRADE or what == _E_QUOTE):
            now[_EMPTIED] = 1
            _emit(out, report, now[_CLEARED], 0, 0, -1, -1, 0, _NOTE, 2, _SHOWN, 0)
        if what == _E_HALT:
            if not now[_HALTED]:
                _emit(out, report, ts_ns[i], 0, 0, -1, -1, 0, _HALT, 2, 0, 0)
            now[_HALTED] = 1
            continue
        if now[_HALTED]:
            now[_HALTED] = 0
            _emit(out, report, ts_ns[i], 0, 0, -1, -1, 0, _RESUME, 2, 0, 0)
        if size[i] < 0 or size[i] > MOST_LOTS or price[i] > _MOST_PRICE or price[i] < -_MOST_PRICE:
            _fail(report, NEGATIVE_SIZE if size[i] < 0 else TOO_LARGE, i, size[i])
        elif what == _E_QUOTE and now[_STANDING] == _STANDS:
            report[QUOTES] += 1
        elif what == _E_QUOTE or what == _E_LEVEL:
            _fail(report, NOT_BY_ORDER, i, what)
        elif what == _E_CLEAR:
            levels[:] = 0
            now[_AGE] += 1
            now[_FREE] = report[SLOTS_MADE]  # every slot is free again
            for slot in range(now[_FREE]):
                free[slot] = now[_FREE] - 1 - slot
            now[_PENDING], now[_CLEARED], now[_EMPTIED] = 1, ts_ns[i], 0
            now[_STANDING] = _HOLE if flags[i] & _GAP else _OPENING
            _emit(out, report, ts_ns[i], 0, 0, -1, -1, 0, _CLEAR, 2, 0, 0)
        elif what == _E_TRADE:
            _trade(now, orders, levels, free, pages, out, report, lenient, i, ts_ns[i], side[i], price[i], size[i], by,
                   flags[i], dense[i])  # fmt: skip
        elif what == _E_DEPTH:
            if now[_STANDING] != _OPENING and now[_STANDING] != _STANDS:
                report[UNWHOLE] += 1
                continue
            first = report[MADE]
            _depth(now, orders, levels, free, pages, out, report, i, ts_ns[i], side[i], price[i], size[i])
            if flags[i] & _LAST:
                _show(now, out, report, first, ts_ns[i])
        else:
            if now[_STANDING] == _HOLE:
                report[UNWHOLE] += 1
                continue
            first = report[MADE]
            known = _order(now, orders, levels, free, pages, out, report, lenient, i, ts_ns[i], what, side[i],
                           price[i], size[i], by, dense[i])  # fmt: skip
            if known and (flags[i] & _LAST or not now[_PENDING]):
                _show(now, out, report, first, ts_ns[i])
        if report[ERROR]:
            return
    if now[_PENDING] and not now[_EMPTIED]:  # the day ends with a CLEAR
        _emit(out, report, now[_CLEARED], 0, 0, -1, -1, 0, _NOTE, 2, _SHOWN, 0)


@njit(cache=True)
def _fail(report, code, row, value):
    if not report[ERROR]:
        report[ERROR], report[ERROR_ROW], report[ERROR_VALUE] = code, row, value


@njit(cache=True)
def _emit(out, report, ts_ns, price, size, order, level, detail, kind, side, flags, aggressor):
    at = report[MADE]
    out[at].ts_ns, out[at].price, out[at].size, out[at].order = ts_ns, price, size, order
    out[at].level, out[at].detail, out[at].kind, out[at].side = level, detail, kind, side
    out[at].flags, out[at].aggressor = flags, aggressor
    report[MADE] = at + 1


@njit(cache=True)
def _show(now, out, report, first, ts_ns):
    """Mark the last message of an event as one that the visible book follows; a message that ends a CLEAR is WHOLE."""
    if now[_PENDING]:
        now[_PENDING], now[_STANDING] = 0, _STANDS
        _emit(out, report, ts_ns, 0, 0, -1, -1, 0, _WHOLE, 2, _SHOWN, 0)
        return
    now[_STANDING] = _STANDS
    if report[MADE] == first:
        _emit(out, report, ts_ns, 0, 0, -1, -1, 0, _NOTE, 2, _SHOWN, 0)
    else:
        out[report[MADE] - 1].flags |= _SHOWN


@njit(cache=True)
def _level(now, pages, report, side, price):
    """Level of a price, its page made where it has none; -1 beyond the window."""
    at = price - now[_LOW]
    if at < 0 or at >= now[_SPAN]:
        return -1
    key = at if side == 1 else now[_SPAN] - 1 - at
    if pages[side, key >> 6] < 0:
        pages[side, key >> 6] = report[PAGES_MADE]
        report[PAGES_MADE] += 1
    return 64 * np.int64(pages[side, key >> 6]) + (key & 63)


@njit(cache=True)
def _find(now, pages, side, price):
    """Level of a price, or -1 where nothing has rested."""
    at = price - now[_LOW]
    if at < 0 or at >= now[_SPAN]:
        return -1
    key = at if side == 1 else now[_SPAN] - 1 - at
    page = np.int64(pages[side, key >> 6])
    return -1 if page < 0 else 64 * page + (key & 63)


@njit(cache=True)
def _new_slot(now, free, report):
    """A slot for an order: the one freed last, so that few are in use and those are warm."""
    if now[_FREE] > 0:
        now[_FREE] -= 1
        return free[now[_FREE]]
    report[SLOTS_MADE] += 1
    return report[SLOTS_MADE] - 1


@njit(cache=True)
def _release(now, orders, free, row):
    orders[row, _EPOCH] = 0
    free[now[_FREE]] = orders[row, _SLOT]
    now[_FREE] += 1


@njit(cache=True)
def _take(now, orders, levels, free, pages, out, report, ts_ns, row, size, kind, aggressor, printed):
    """`size` lots of the order in `row` leave its level by a message of `kind`."""
    if size > orders[row, _LOTS]:
        report[OVERSIZED] += 1
        size = orders[row, _LOTS]
    side, price = orders[row, _SIDE], orders[row, _PRICE]
    level = _find(now, pages, side, price)
    doubtful = orders[row, _BORN] < levels[level, _DOUBT]
    from_known = min(size, levels[level, _KNOWN])
    orders[row, _LOTS] -= size
    flags = _FINAL if orders[row, _LOTS] == 0 else 0
    report[DOUBTFUL] += doubtful
    if doubtful:  # it may take lots of the others there, which are then as doubtful
        flags |= _LOOSE
        levels[level, _DOUBT] = now[_ROW] + 1
    _emit(out, report, ts_ns, price, from_known if doubtful else size, orders[row, _SLOT], level, printed, kind, side,
          flags, aggressor)  # fmt: skip
    levels[level, _TOTAL] -= from_known
    levels[level, _KNOWN] -= from_known
    if size > from_known:
        _take_loose(now, orders, levels, free, out, report, ts_ns, side, price, level, size - from_known, _CUT, 0, 0)
    if orders[row, _LOTS] == 0:
        _release(now, orders, free, row)


@njit(cache=True)
def _take_loose(now, orders, levels, free, out, report, ts_ns, side, price, level, size, kind, aggressor, printed):
    """Lots of anonymous orders leave: cancels take the newest first, executions the oldest; gives how many left."""
    left = min(size, levels[level, _TOTAL] - levels[level, _KNOWN])
    gone = left
    while left > 0:
        row, newer = levels[level, _NEWEST] - 1, np.int64(-1)
        while kind == _EXECUTE and orders[row, _OLDER] != 0:
            newer, row = row, orders[row, _OLDER] - 1
        take = min(left, orders[row, _LOTS])
        orders[row, _LOTS] -= take
        flags = 0 if orders[row, _LOTS] else _FINAL
        _emit(out, report, ts_ns, price, take, orders[row, _SLOT], level, printed, kind, side, flags, aggressor)
        printed = 0
        if flags:
            if newer >= 0:
                orders[newer, _OLDER] = orders[row, _OLDER]
            else:
                levels[level, _NEWEST] = orders[row, _OLDER]
            _release(now, orders, free, row)
        left -= take
    levels[level, _TOTAL] -= gone
    return gone


@njit(cache=True)
def _trade(now, orders, levels, free, pages, out, report, lenient, i, ts_ns, side, price, size, order, flags, row):
    """A trade: of an order that rests, of lots that belong to none, or a bare print."""
    shown = 0 if now[_PENDING] else _SHOWN
    if flags & _E_HIDDEN:
        _emit(out, report, ts_ns, price, size, -1, -1, 0, _PRINT, 2, _HIDDEN, side)
        return
    if order != 0 and orders[row, _EPOCH] == now[_AGE]:
        first = report[MADE]
        _take(now, orders, levels, free, pages, out, report, ts_ns, row, size, _EXECUTE, side, size)
        if shown and report[MADE] > first:
            out[report[MADE] - 1].flags |= shown
        return
    if order != 0 and now[_STANDING] != _HOLE:
        resting = 1 if side == _BUY else 0
        level = _find(now, pages, resting, price) if side != 0 and price > 0 else -1
        if level >= 0 and levels[level, _TOTAL] > levels[level, _KNOWN]:
            report[OVERSIZED] += size > levels[level, _TOTAL] - levels[level, _KNOWN]
            _take_loose(
                now, orders, levels, free, out, report, ts_ns, resting, price, level, size, _EXECUTE, side, size
            )
            out[report[MADE] - 1].flags |= shown
            return
        report[UNKNOWN] += 1
        if not lenient:
            _fail(report, UNKNOWN_ORDER, i, order)
    if order == 0 and side != 0:
        if now[_PRINT_NS] != ts_ns or now[_PRINT_PRICE] != price or now[_PRINT_SIDE] != side:
            now[_PRINT_LEFT] = 0
        now[_PRINT_NS], now[_PRINT_PRICE], now[_PRINT_SIDE] = ts_ns, price, side
        now[_PRINT_LEFT] += size
    _emit(out, report, ts_ns, price, size, -1, -1, size, _PRINT, 2, 0, side)


@njit(cache=True)
def _depth(now, orders, levels, free, pages, out, report, i, ts_ns, side, price, size):
    """All lots at a price: more than stand there join as an anonymous order, fewer take those first."""
    which = 0 if side == _BUY else 1
    level = _level(now, pages, report, which, price) if size > 0 else _find(now, pages, which, price)
    if level < 0:
        return
    more = size - levels[level, _TOTAL]
    if more > 0:
        row = now[_ANON]
        now[_ANON] += 1
        orders[row, _SLOT] = _new_slot(now, free, report)
        orders[row, _LOTS], orders[row, _OLDER] = more, levels[level, _NEWEST]
        levels[level, _NEWEST] = row + 1
        levels[level, _TOTAL] = size
        _emit(out, report, ts_ns, price, more, orders[row, _SLOT], level, 0, _ADD, which, _ANONYMOUS, 0)
        if size > MOST_LOTS:
            _fail(report, TOO_HEAVY, i, size)
    elif more < 0:
        gone = _take_loose(now, orders, levels, free, out, report, ts_ns, which, price, level, -more, _CUT, 0, 0)
        if gone < -more:
            denied = -more - gone
            levels[level, _TOTAL] -= denied
            levels[level, _KNOWN] -= denied
            levels[level, _DOUBT] = i + 1
            _emit(out, report, ts_ns, price, denied, -1, level, 0, _SHRINK, which, 0, 0)


@njit(cache=True)
def _order(now, orders, levels, free, pages, out, report, lenient, i, ts_ns, kind, side, price, size, order, row):
    """An order comes, goes or moves; False where it is unknown."""
    live = order != 0 and orders[row, _EPOCH] == now[_AGE]
    if kind == _E_CANCEL and live:
        told = min(size, orders[row, _LOTS])
        resting = now[_PRINT_SIDE] == (-1 if orders[row, _SIDE] == 0 else 1)
        if (
            resting
            and now[_PRINT_NS] == ts_ns
            and now[_PRINT_PRICE] == orders[row, _PRICE]
            and now[_PRINT_LEFT] >= told
        ):
            now[_PRINT_LEFT] -= told
            report[PAIRED] += 1
            aggressor = now[_PRINT_SIDE]
            _take(now, orders, levels, free, pages, out, report, ts_ns, row, size, _EXECUTE, aggressor, 0)
        else:
            _take(now, orders, levels, free, pages, out, report, ts_ns, row, size, _CUT, 0, 0)
        return True
    if kind == _E_CANCEL:
        which = 0 if side == _BUY else 1
        level = _find(now, pages, which, price) if side != 0 and price > 0 else -1
        if level >= 0 and levels[level, _TOTAL] > levels[level, _KNOWN]:
            report[OVERSIZED] += size > levels[level, _TOTAL] - levels[level, _KNOWN]
            _take_loose(now, orders, levels, free, out, report, ts_ns, which, price, level, size, _CUT, 0, 0)
            return True
    if kind == _E_CANCEL or order == 0 or (kind == _E_REPLACE and not live):
        report[UNKNOWN] += 1
        if not lenient:
            _fail(report, UNKNOWN_ORDER, i, order)
        return False
    which, before, moved = (0 if side == _BUY else 1), np.int64(0), False
    if live:
        which = orders[row, _SIDE] if side == 0 else which
        old = _find(now, pages, orders[row, _SIDE], orders[row, _PRICE])
        moved = size > 0 and orders[row, _BORN] >= levels[old, _DOUBT]
        if moved:  # one message: what history had is taken off here, the queues do so when they read it
            before = orders[row, _LOTS]
            levels[old, _TOTAL] -= before
            levels[old, _KNOWN] -= before
        else:
            _take(now, orders, levels, free, pages, out, report, ts_ns, row, orders[row, _LOTS], _CUT, 0, 0)
    if size == 0:
        return True
    level = _level(now, pages, report, which, price)
    if not moved:
        orders[row, _SLOT] = _new_slot(now, free, report)
    orders[row, _SIDE], orders[row, _PRICE], orders[row, _LOTS] = which, price, size
    orders[row, _BORN], orders[row, _EPOCH] = i + 1, now[_AGE]
    levels[level, _TOTAL] += size
    levels[level, _KNOWN] += size
    kind = _REPLACE if moved else _ADD
    _emit(out, report, ts_ns, price, size, orders[row, _SLOT], level, before, kind, which, 0, 0)
    if levels[level, _TOTAL] > MOST_LOTS:
        _fail(report, TOO_HEAVY, i, levels[level, _TOTAL])
    return True
