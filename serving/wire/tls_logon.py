"""The first message of a FIX connection, read strictly and within bounds before anybody acts on it."""

import re
from collections import Counter
from collections.abc import Callable

LOGON_MAX = 4096
"""Bytes of a Logon's body at most."""
LINE_TAG = 5703
"""User-defined: the secret by which an acceptor knows that a Logon came through its TLS line."""
_START = b"8=FIX.4.4\x019="
_ONCE = (b"8", b"9", b"35", b"49", b"56", b"34", b"108", b"10")
_TAG = re.compile(rb"[1-9][0-9]{0,8}")
_SECONDS = re.compile(rb"[0-9]{1,4}")


class LogonError(ValueError):
    """The connection does not begin with a Logon that can be read; the message is for the log."""


def read_logon(receive: Callable[[], bytes]) -> tuple[bytes, bytes]:
    """The Logon and what came behind it. `receive` gives what comes next, b"" at the end.

    Raises LogonError at the first byte that no Logon has, and whatever `receive` raises.
    """
    data = b""
    while (size := _size(data)) is None or len(data) < size:
        more = receive()
        if not more:
            raise LogonError(f"it ended after {len(data)} bytes, before a Logon")
        data += more
    return data[:size], data[size:]


def comp_ids(logon: bytes) -> tuple[str, str]:
    """SenderCompID and TargetCompID. Raises LogonError.

    A tag that QuickFIX might find in another place than this does is refused: whoever stands twice is nobody. So is
    what it would end the whole process at (quickfix-tls 1.16.0.1rc1): a tag or a HeartBtInt of a first message that is
    no number.
    """
    fields = [part.partition(b"=")[::2] for part in logon.split(b"\x01")[:-1]]
    for tag, _ in fields:
        if not _TAG.fullmatch(tag):
            raise LogonError(f"{tag[:16]!r} is no tag")  # 049, too: QuickFIX reads 49
    found = Counter(tag for tag, _ in fields)
    for tag in _ONCE:
        if found[tag] != 1:
            raise LogonError(f"tag {tag.decode()} stands {found[tag]} times in its first message")
    if found[b"%d" % LINE_TAG]:
        raise LogonError(f"tag {LINE_TAG} is not for who comes from outside")
    if [tag for tag, _ in fields[:3]] != [b"8", b"9", b"35"] or fields[2][1] != b"A":
        raise LogonError(f"its first message is of type {dict(fields)[b'35'][:8]!r}, not a Logon")
    head = logon.rindex(b"\x0110=") + 1
    if logon[head:] != b"10=%03d\x01" % (sum(logon[:head]) % 256):
        raise LogonError("the checksum of its first message is wrong")
    values = dict(fields)
    if not _SECONDS.fullmatch(values[b"108"]):
        raise LogonError(f"HeartBtInt(108) {values[b'108'][:16]!r} is no number of up to 4 digits")
    found_ids = [values[tag].decode("latin-1") for tag in (b"49", b"56")]
    if wrong := [name[:64] for name in found_ids if not 0 < len(name) <= 64 or not name.isascii()]:
        raise LogonError(f"CompID {wrong[0]!r} is not of 1 to 64 ASCII characters")
    return found_ids[0], found_ids[1]


def with_secret(logon: bytes, secret: str) -> bytes:
    """The Logon with the secret as its last field before the checksum, length and checksum made anew."""
    start = logon.index(b"\x01", len(_START)) + 1
    body = logon[start : logon.rindex(b"\x0110=") + 1] + b"%d=%s\x01" % (LINE_TAG, secret.encode())
    whole = _START + b"%d\x01" % len(body) + body
    return whole + b"10=%03d\x01" % (sum(whole) % 256)


def _size(data: bytes) -> int | None:
    """Bytes of the whole message as its BodyLength says, None before that can be read."""
    if data[: len(_START)] != _START[: len(data)]:
        raise LogonError(f"it begins with {data[:16]!r}, not with a FIX 4.4 message")
    digits, mark, _ = data[len(_START) : len(_START) + 6].partition(b"\x01")
    if digits and (not digits.isdigit() or len(digits) > 4):
        raise LogonError(f"BodyLength(9) {digits!r} is no number up to {LOGON_MAX}")
    if not mark:
        return None
    length = int(digits or b"0")
    if not 0 < length <= LOGON_MAX:
        raise LogonError(f"BodyLength(9) {length} is not from 1 to {LOGON_MAX}")
    size = len(_START) + len(digits) + 1 + length + len(b"10=000\x01")
    if len(data) >= size and (data[size - 8 : size - 4] != b"\x0110=" or data[size - 1 : size] != b"\x01"):
        raise LogonError(f"its first message does not end where BodyLength(9) {length} says")
    return size
