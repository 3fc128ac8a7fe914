"""The venue's FIX edge: messages of clients into its inbox, what it tells them into execution reports. Nothing else."""

import logging
from collections.abc import Callable, Mapping

import quickfix

from serving.wire.fix_fields import BUSINESS_REJECT, Fields, FixMessageError, Tag, build
from serving.wire.fix_numbers import Scale
from serving.wire.fix_orders import decode_inbound
from serving.wire.fix_reports import encode_cancel_reject, encode_execution, encode_no_orders
from serving.wire.messages import Inbound
from training.market.venue.core import CancelReject, Execution, NothingOpen, Told

log = logging.getLogger(__name__)
EXEC_TYPES = {
    "new": "0", "trade": "F", "cancelled": "4", "expired": "C", "replaced": "5", "rejected": "8", "status": "I",
}  # fmt: skip

Inbox = Callable[[str, str, Inbound | None, str, int], None]
"""Takes client, the message as it came, what it says (None: it cannot be taken), why not, and its MsgSeqNum."""


class VenueFix:
    """A `serving.wire.fix_application.FixHandler`; called in FIX's threads, so that `inbox` must hand over."""

    def __init__(self, scales: Mapping[str, Scale], inbox: Inbox, on_failure: Callable[[str], None]) -> None:
        self._scales, self._inbox, self._on_failure = scales, inbox, on_failure

    def logged_on(self, peer: str) -> None:
        """Say so."""
        log.info("%s logged on", peer)

    def logged_out(self, peer: str) -> None:
        """Say so. Orders stand: who wants them cancelled on disconnect cancels them."""
        log.info("%s logged out", peer)

    def received(self, peer: str, message: quickfix.Message) -> None:
        """Decode and hand over; what cannot be decoded is handed over too, since the log keeps everything."""
        raw = message.toString()
        fields = Fields.of(raw)
        number = int(message.getHeader().getField(34))
        try:
            self._inbox(peer, raw, decode_inbound(fields, self._scales), "", number)
        except FixMessageError as error:
            self._inbox(peer, raw, None, str(error), number)

    def veto(self, peer: str, message: quickfix.Message, resent: bool) -> str | None:
        """Reports are facts: they always go, and again when asked for."""
        return None

    def vetoed(self, peer: str, message: quickfix.Message, reason: str, resent: bool) -> None:
        """Only after a failure."""

    def failed(self, reason: str) -> None:
        """The venue cannot go on."""
        self._on_failure(reason)

    def encode(self, told: Told) -> quickfix.Message:
        """What a client is told, as its message."""
        if isinstance(told, CancelReject):
            return encode_cancel_reject(
                told.cl_ord_id, told.orig, told.venue_order_id, told.status, told.to, told.reason, told.ts_ns
            )
        if isinstance(told, NothingOpen):
            return encode_no_orders(told.request, told.exec_id, told.ts_ns)
        return self._execution(told)

    def refuse(self, raw: str, reason: str, number: int) -> quickfix.Message:
        """The answer to a message that cannot be taken: BusinessMessageReject."""
        kind = next((part[3:] for part in raw.split("\x01") if part.startswith("35=")), "?")
        message = build(BUSINESS_REJECT, {Tag.TEXT: reason[:200]})
        for tag, value in ((45, str(number)), (372, kind), (380, "0")):
            message.setField(tag, value)
        fields = Fields.of(raw)
        try:
            reference = fields.get(Tag.CL_ORD_ID)
        except FixMessageError:
            reference = None
        if reference:
            message.setField(379, reference)
        return message

    def _execution(self, told: Execution) -> quickfix.Message:
        request = None
        if told.request:
            request = (Tag.MASS_STATUS_REQ_ID if told.mass else Tag.ORD_STATUS_REQ_ID, told.request)
        return encode_execution(
            EXEC_TYPES[told.what],
            told.state,
            self._scales[told.state.symbol] if told.state.symbol in self._scales else Scale(1, 0),
            told.exec_id,
            told.ts_ns,
            orig=told.orig,
            last=told.last,
            text=told.text,
            request=request,
            count=told.reports,
        )
