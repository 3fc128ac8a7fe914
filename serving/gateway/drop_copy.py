"""The drop copy: executions as a second session of the venue reports them, kept in a file of their own.

FIX hands each message over once, so that what came must be on the disk before the callback returns; after a restart
the venue sends what was missed. A line that is torn by a crash was not taken, and comes again.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import quickfix

from serving.contracts.orders import Busted, Corrected, Filled, Report, decode_report, encode
from serving.gateway.config import FixConfig
from serving.gateway.fix_out import initiator
from serving.wire.fix_fields import EXECUTION, Fields
from serving.wire.fix_numbers import Scale
from serving.wire.fix_reports import decode_answer


class DropCopy:
    """A `FixHandler` and its session, which only listens. `failed` is called in FIX's threads."""

    def __init__(
        self, venue: str, config: FixConfig, scales: dict[str, Scale], folder: Path, base: Path,
        on_failure: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.venue, self._scales, self._on_failure = venue, scales, on_failure
        self._lock = threading.Lock()
        self._path = folder / f"drop-copy-{venue}.jsonl"
        self._reports = _read(self._path)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        store = folder / "fix" / f"{venue}-drop"
        self._session = initiator(self, config, store, base, log_fix=False, on_reject=self._rejected)

    @property
    def is_up(self) -> bool:
        """Logged on."""
        return self._session.is_up

    def start(self) -> None:
        """Connect."""
        self._session.start()

    def stop(self) -> None:
        """Log out and close."""
        self._session.stop()
        os.close(self._file)

    def is_caught_up(self, timeout_s: float) -> bool:
        """Whether all that the venue had sent when this was asked has come. Waits: not for the deciding thread."""
        return self._session.is_up and self._session.barrier(timeout_s)

    def fills(self) -> list[Filled]:
        """Executions that stand, oldest first."""
        found: dict[str, Filled] = {}
        with self._lock:
            reports = list(self._reports)
        for report in reports:
            if isinstance(report, Filled):
                found.setdefault(report.exec_id, report)
            elif isinstance(report, Busted):
                found.pop(report.exec_id, None)
            elif isinstance(report, Corrected) and report.exec_id in found:
                old = found[report.exec_id]
                found[report.exec_id] = Filled(
                    order_id=old.order_id, ts_ns=old.ts_ns, exec_id=old.exec_id, price_ticks=report.price_ticks,
                    lots=report.lots, fee=old.fee,
                )  # fmt: skip
        return list(found.values())

    def start_day(self) -> None:
        """Forget the executions of the day before, whose orders are gone."""
        with self._lock:
            self._reports.clear()
            os.ftruncate(self._file, 0)
            os.fsync(self._file)

    def logged_on(self, peer: str) -> None:
        """See FixHandler."""

    def logged_out(self, peer: str) -> None:
        """See FixHandler."""

    def received(self, peer: str, message: quickfix.Message) -> None:
        """See FixHandler. To raise ends the session: a drop copy that is not understood is none."""
        fields = Fields.of(message)
        if fields.type != EXECUTION:
            return
        report = decode_answer(fields, self._scales).report
        if isinstance(report, Filled | Busted | Corrected):
            with self._lock:
                line = encode(report) + b"\n"
                if os.write(self._file, line) != len(line):
                    raise OSError(f"{self._path}: a line of {len(line)} bytes was not written whole")
                os.fdatasync(self._file)
                self._reports.append(report)

    def veto(self, peer: str, message: quickfix.Message, resent: bool) -> str | None:
        """See FixHandler. Nothing is ever sent here."""
        return "the drop copy only listens"

    def vetoed(self, peer: str, message: quickfix.Message, reason: str, resent: bool) -> None:
        """See FixHandler."""

    def failed(self, reason: str) -> None:
        """See FixHandler."""
        self._on_failure(f"the drop copy of {self.venue} failed: {reason}")

    def _rejected(self, peer: str, number: int, reason: str) -> None:
        """What it asked of the venue was a TestRequest, or a repetition: whether all has come is not known."""
        self._on_failure(f"the drop copy of {self.venue}: message {number} was rejected: {reason}")


def _read(path: Path) -> list[Report]:
    if not path.exists():
        return []
    raw = path.read_bytes()
    whole, _, torn = raw.rpartition(b"\n")
    if torn:  # never taken: the venue sends it again
        os.truncate(path, len(raw) - len(torn))
    return [decode_report(line) for line in whole.splitlines()]
