"""What a session sent, by sequence number, from the files of QuickFIX's own store.

QuickFIX writes a message there and flushes it before it sends it: nothing is remembered beside it while orders leave,
and what was sent before a restart is found too. The files are read by a handle of our own: QuickFIX's would have to be
moved from where the sending thread is about to append.
"""

from pathlib import Path

import quickfix

from serving.wire.fix_fields import SOH

TAIL = 1 << 20
"""Bytes of the index that are looked through, from its end: some 50,000 messages."""


def sent_message(store: Path, session: quickfix.SessionID, number: int) -> str | None:
    """The message with MsgSeqNum `number`, None where the store does not hold it, or no longer within TAIL."""
    ends = session.getBeginString(), session.getSenderCompID(), session.getTargetCompID()
    stem = "-".join(part.getValue() for part in ends)
    try:
        with (store / f"{stem}.header").open("rb") as index:
            size = index.seek(0, 2)
            index.seek(max(size - TAIL, 0))
            entries = b" " + index.read()  # "number,offset,length " for each message
        found = entries.rfind(b" %d," % number)
        if found < 0:
            return None
        _, offset, length = entries[found:].split(maxsplit=1)[0].split(b",")
        with (store / f"{stem}.body").open("rb") as body:
            body.seek(int(offset))
            message = body.read(int(length)).decode("latin-1")
    except (OSError, ValueError):
        return None
    return message if f"{SOH}34={number}{SOH}" in message else None
