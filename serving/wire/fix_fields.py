"""Fields of a FIX message by tag, and the tags that this platform reads and writes."""

from collections.abc import Iterable
from enum import IntEnum

import quickfix

from serving.contracts.orders import TEXT_MAX

SOH = "\x01"
VALUE_MAX = 512


class FixMessageError(ValueError):
    """A message that cannot be taken; the message names tag, value and what is allowed."""


class Tag(IntEnum):
    """FIX 4.4 tags."""

    ACCOUNT = 1
    AVG_PX = 6
    CL_ORD_ID = 11
    COMMISSION = 12
    COMM_TYPE = 13
    CUM_QTY = 14
    EXEC_ID = 17
    EXEC_REF_ID = 19
    LAST_PX = 31
    LAST_QTY = 32
    MSG_TYPE = 35
    ORDER_ID = 37
    ORDER_QTY = 38
    ORD_STATUS = 39
    ORD_TYPE = 40
    ORIG_CL_ORD_ID = 41
    POSS_DUP = 43
    REF_SEQ_NUM = 45
    PRICE = 44
    SENDER_SUB_ID = 50  # the responsible trader
    SIDE = 54
    SYMBOL = 55
    TEXT = 58
    TIME_IN_FORCE = 59
    TRANSACT_TIME = 60
    POSS_RESEND = 97
    CXL_REJ_REASON = 102
    ORD_REJ_REASON = 103
    TEST_REQ_ID = 112
    EXPIRE_TIME = 126
    EXEC_TYPE = 150
    LEAVES_QTY = 151
    EFFECTIVE_TIME = 168
    CXL_REJ_RESPONSE_TO = 434
    USERNAME = 553
    PASSWORD = 554
    CL_ORD_LINK_ID = 583  # the parent order
    MASS_STATUS_REQ_ID = 584
    MASS_STATUS_REQ_TYPE = 585
    ORD_STATUS_REQ_ID = 790
    TARGET_STRATEGY = 847
    TOT_NUM_REPORTS = 911
    LAST_RPT_REQUESTED = 912
    ALGORITHM = 5701  # user-defined: who decided, by its registered id
    STRATEGY = 5702  # user-defined: whose risk it is


_BEFORE = {tag: f"{int(tag)}=" for tag in Tag}
NEW_ORDER, REPLACE, CANCEL, STATUS, MASS_STATUS = "D", "G", "F", "H", "AF"
EXECUTION, CANCEL_REJECT, BUSINESS_REJECT = "8", "9", "j"
HEARTBEAT, TEST_REQUEST, REJECT, LOGON = "0", "1", "3", "A"


class Fields:
    """A message's fields as text. A tag that stands twice is refused when it is read, not before."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, str] = {}
        self._twice: set[str] = set()
        for tag, value in pairs:
            if tag in self._values:
                self._twice.add(tag)
            self._values[tag] = value

    @classmethod
    def of(cls, message: quickfix.Message | str) -> "Fields":
        """From a message of QuickFIX, or its text."""
        raw = message if isinstance(message, str) else message.toString()
        return cls((tag, value) for tag, mark, value in (part.partition("=") for part in raw.split(SOH)) if mark)

    @property
    def type(self) -> str:
        """MsgType."""
        return self.text(Tag.MSG_TYPE)

    @property
    def is_resent(self) -> bool:
        """PossDup: the sender repeats itself, and may have been heard the first time."""
        return self._values.get("43") == "Y"

    def get(self, tag: Tag) -> str | None:
        """The value, None where the tag is absent. Raises FixMessageError for one that stands twice or is no text."""
        value = self._values.get(str(int(tag)))
        if value is None:
            return None
        if str(int(tag)) in self._twice:
            raise FixMessageError(f"{tag.name}({int(tag)}) stands twice")
        if not value or len(value) > VALUE_MAX or not value.isascii() or not value.isprintable():
            raise FixMessageError(
                f"{tag.name}({int(tag)}) {value[:40]!r} is not printable ASCII up to {VALUE_MAX} long"
            )
        return value

    def text(self, tag: Tag) -> str:
        """The value of a tag that must be there."""
        value = self.get(tag)
        if value is None:
            raise FixMessageError(f"{tag.name}({int(tag)}) is missing")
        return value

    def name(self, tag: Tag) -> str:
        """An identifier: up to TEXT_MAX characters."""
        value = self.text(tag)
        if len(value) > TEXT_MAX:
            raise FixMessageError(f"{tag.name}({int(tag)}) of {len(value)} characters exceeds {TEXT_MAX}")
        return value

    def one_of(self, tag: Tag, allowed: dict[str, str], default: str | None = None) -> str:
        """A code, translated."""
        value = self.get(tag) or default
        if value is None:
            raise FixMessageError(f"{tag.name}({int(tag)}) is missing")
        if value not in allowed:
            raise FixMessageError(f"{tag.name}({int(tag)}) {value} is none of {', '.join(allowed)}")
        return allowed[value]


def build(message_type: str, fields: dict[Tag, str | None]) -> quickfix.Message:
    """A message; a value of None leaves its tag out. Raises FixMessageError for a value that would be two fields.

    Written as text and parsed at once: a call a field costs six times as much. Session, length and checksum are filled
    in when it is sent.
    """
    trader = fields.get(Tag.SENDER_SUB_ID)
    parts = [f"35={message_type}"] if trader is None else [f"35={message_type}", f"50={trader}"]
    parts += [_BEFORE[tag] + value for tag, value in fields.items() if value is not None and tag != Tag.SENDER_SUB_ID]
    text = SOH.join(parts)
    if text.count(SOH) != len(parts) - 1:
        part = next(part for part in parts if SOH in part)
        raise FixMessageError(f"a value holds the separator of fields: {part[:40]!r}")
    return quickfix.Message(f"8=FIX.4.4{SOH}9=0{SOH}{text}{SOH}10=000{SOH}", False)


def message_type(message: quickfix.Message) -> str:
    """MsgType of a message."""
    return str(message.getHeader().getField(int(Tag.MSG_TYPE)))


def is_resent(message: quickfix.Message) -> bool:
    """PossDup of a message."""
    header = message.getHeader()
    return bool(header.isSetField(int(Tag.POSS_DUP))) and header.getField(int(Tag.POSS_DUP)) == "Y"
