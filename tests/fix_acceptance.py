"""QuickFIX's acceptance suite against our acceptor: `make fix-acceptance DEFINITIONS=FOLDER`.

FOLDER holds the suite's files at any depth: `test/definitions/server` of QuickFIX's sources (none is kept here). A line
of one is `iCONNECT` or `iDISCONNECT` (our side connects, hangs up), `eDISCONNECT` (the acceptor must hang up), `I...`
(send) or `E...` (this must come next); `I2,...` is the second of several connections. `<TIME>`, `<TIME+5>` and
`<TIME-5>` are the time and seconds from it; BodyLength and CheckSum are added where they are missing. What comes must
have the expected fields in their order: equal ones, or such as fit the tag's pattern in `fields.fmt` near the files.

The acceptor is `serving.wire.fix_session.FixAcceptor` with the suite's own settings, as text, and an application that
sends orders back. The command fails where a definition does.
"""

import argparse
import re
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fixcore
import quickfix

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from serving.wire.fix_session import FixAcceptor  # noqa: E402 - found only now where this file is run

DICTIONARIES = Path(fixcore.__file__).parent / "specs"
"""The dictionaries that a foreign engine of the dev extra carries: FIX40.xml to FIX50SP2.xml, FIXT11.xml."""
SETTINGS = """
[DEFAULT]
ConnectionType=acceptor
SocketAcceptPort={port}
SocketReuseAddress=Y
StartTime=00:00:00
EndTime=00:00:00
SenderCompID=ISLD
TargetCompID=TW
ResetOnLogon=Y
FileStorePath={store}
[SESSION]
BeginString=FIX.4.0
DataDictionary={dictionaries}/FIX40.xml
[SESSION]
BeginString=FIX.4.1
DataDictionary={dictionaries}/FIX41.xml
[SESSION]
BeginString=FIX.4.2
DataDictionary={dictionaries}/FIX42.xml
[SESSION]
BeginString=FIX.4.3
DataDictionary={dictionaries}/FIX43.xml
[SESSION]
BeginString=FIX.4.4
DataDictionary={dictionaries}/FIX44.xml
[SESSION]
BeginString=FIXT.1.1
DefaultApplVerID=FIX.5.0
TransportDataDictionary={dictionaries}/FIXT11.xml
AppDataDictionary={dictionaries}/FIX50.xml
AppDataDictionary.FIX.5.0SP1={dictionaries}/FIX50SP1.xml
AppDataDictionary.FIX.5.0SP2={dictionaries}/FIX50SP2.xml
"""
PATTERNS = {
    "10": r"\d{3}", "42": r"\d{8}-\d{2}:\d{2}:\d{2}", "52": r"\d{8}-\d{2}:\d{2}:\d{2}",
    "60": r"\d{8}-\d{2}:\d{2}:\d{2}", "122": r"\d{8}-\d{2}:\d{2}:\d{2}",
}  # fmt: skip
"""Where no fields.fmt lies beside the definitions."""
WAIT_S = 10.0
PAUSE_S = 0.1
"""Before each connection: QuickFIX closes the last one before it tells the application and lets the session go."""
LINE = re.compile(r"(?s)([iIeE])(?:(\d),)?(.*)")
TIME = re.compile(r"<TIME(?:([+-])(\d+))?>")


class Failed(Exception):
    """A definition does not hold; the message says at which line and why."""


class Echo(quickfix.Application):
    """What the suite expects behind the acceptor: orders, security definitions and e-mails go back as they came."""

    def __init__(self):
        super().__init__()
        self._seen = set()

    def onCreate(self, session):
        """Nothing is to be done."""

    def onLogon(self, session):
        """Nothing is to be done."""

    def onLogout(self, session):
        """The next test begins anew."""
        self._seen.clear()

    def toAdmin(self, message, session):
        """Nothing is to be done."""

    def toApp(self, message, session):
        """Nothing is to be done."""

    def fromAdmin(self, message, session):
        """Answer in the version of FIX 5.0 that a logon asks for."""
        version = quickfix.DefaultApplVerID()
        if message.getHeader().getField(35) == "A" and message.isSetField(version):
            message.getField(version)
            quickfix.Session.lookupSession(session).setSenderDefaultApplVerID(version.getValue())

    def fromApp(self, message, session):
        """Send back; an order that may have come before (PossResend) only where it had not."""
        header = message.getHeader()
        kind = header.getField(35)
        if kind == "D":
            key = (message.getField(11), session.toString())
            if header.isSetField(97) and header.getField(97) == "Y" and key in self._seen:
                return
            self._seen.add(key)
        elif kind not in ("d", "C"):
            raise quickfix.UnsupportedMessageType
        quickfix.Session.sendToTarget(quickfix.Message(message), session)


class Line:
    """One connection to the acceptor."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), WAIT_S)
        self._data = b""

    def message(self) -> str:
        """The next message, of the length that it gives itself."""
        head = self._until(re.compile(rb"\x019=(\d*)\x01"))
        size = head.end() + int(head[1])
        tail = self._until(re.compile(rb"\x01"), size)
        message, self._data = self._data[: tail.end()], self._data[tail.end() :]
        return message.decode("latin-1")

    def expect_end(self) -> None:
        """The acceptor must hang up, and say nothing more."""
        if self._data or self._more():
            raise Failed(f"disconnection expected, {_shown(self._data.decode('latin-1'))} came")

    def _until(self, pattern: re.Pattern[bytes], start: int = 0) -> re.Match[bytes]:
        while (found := pattern.search(self._data, start)) is None:
            if not self._more():
                raise Failed("a message expected, disconnected")
        return found

    def _more(self) -> bool:
        try:
            data = self.socket.recv(65_536)
        except TimeoutError:
            raise Failed(f"nothing came within {WAIT_S:g} s") from None
        except ConnectionResetError:
            return False
        self._data += data
        return bool(data)


class Runner:
    """Runs definitions against the acceptor at a port."""

    def __init__(self, port: int, patterns: dict[str, str]) -> None:
        self._port = port
        self._patterns = {tag: re.compile(pattern) for tag, pattern in patterns.items()}
        self._lines: dict[str, Line] = {}

    def run(self, definition: str) -> None:
        """Raises Failed at the first line that does not hold."""
        try:
            for number, text in enumerate(definition.split("\n"), 1):
                text = text.rstrip("\r")
                if not text or text.startswith("#"):
                    continue
                try:
                    self._line(text)
                except (Failed, OSError, KeyError) as error:
                    raise Failed(f"line {number}, {_shown(text)}: {error}") from error
        finally:
            for line in self._lines.values():
                line.socket.close()
            self._lines.clear()

    def _line(self, text: str) -> None:
        match = LINE.match(text)
        if match is None:
            raise Failed("not a line of a definition")
        kind, which, body = match[1], match[2] or "1", completed(timed(match[3]))
        if kind == "i" and body == "CONNECT":
            time.sleep(PAUSE_S)
            self._lines[which] = Line(self._port)
        elif kind == "i" and body == "DISCONNECT":
            self._lines.pop(which).socket.close()
        elif kind == "e" and body == "DISCONNECT":
            self._lines[which].expect_end()
        elif kind == "I":
            self._lines[which].socket.sendall(body.encode("latin-1"))
        elif kind == "E":
            came = self._lines[which].message()
            if reason := difference(body, came, self._patterns):
                raise Failed(f"{reason}; {_shown(came)} came")
        else:
            raise Failed("a definition for an initiator, or not a line of one")


def timed(text: str) -> str:
    """With the time in place of `<TIME>`."""
    now = datetime.now(UTC)

    def written(match: re.Match[str]) -> str:
        offset = timedelta(seconds=int(f"{match[1]}{match[2]}")) if match[1] else timedelta()
        return (now + offset).strftime("%Y%m%d-%H:%M:%S")

    return TIME.sub(written, text)


def completed(message: str) -> str:
    """With BodyLength behind BeginString and CheckSum at the end, where they are not given."""
    head = re.match(r"8=[^\x01]*\x01", message)
    if head is None:
        return message
    start, body = head[0], message[head.end() :]
    given = re.search(r"\x0110=.*\x01$", body)
    if given is not None:
        body = body[: given.start()]
    length = "" if re.search(r"\x019=[^\x01]*\x01", message) else f"9={len(body)}\x01"
    whole = start + length + body
    return whole + (given[0] if given else f"10={sum(whole.encode('latin-1')) % 256:03d}\x01")


def difference(expected: str, came: str, patterns: dict[str, re.Pattern[str]]) -> str:
    """Why a message is not the expected one, or ""."""
    wanted, found = _fields(expected), _fields(came)
    for (tag, value), (found_tag, found_value) in zip(wanted, found, strict=False):
        if tag != found_tag:
            return f"field {tag} expected, {found_tag} found"
        pattern = patterns.get(tag)
        if pattern is None and value != found_value:
            return f"field {tag} should be {value!r}"
        if pattern is not None and pattern.search(found_value) is None:
            return f"field {tag} does not fit {pattern.pattern}"
    return "" if len(wanted) == len(found) else f"{len(wanted)} fields expected, {len(found)} found"


def patterns_of(folder: Path) -> dict[str, str]:
    """The patterns by tag of fields.fmt in a folder or one above it."""
    for place in (folder, folder.parent, folder.parent.parent):
        if (place / "fields.fmt").is_file():
            lines = (place / "fields.fmt").read_text().split()
            return dict(line.split("=", 1) for line in lines)
    return PATTERNS


def run_all(files: list[Path], port: int, patterns: dict[str, str]) -> Iterator[tuple[Path, str]]:
    """(file, why it failed or "") of each definition in turn."""
    runner = Runner(port, patterns)
    for path in files:
        try:
            runner.run(path.read_bytes().decode("latin-1"))
            yield path, ""
        except Failed as error:
            yield path, str(error)


def main() -> int:
    """Run the definitions of a folder; prints what fails and how many pass."""
    parser = argparse.ArgumentParser(description="QuickFIX's acceptance suite against the acceptor of serving/wire")
    parser.add_argument("definitions", type=Path, help="folder with the suite's .def files, or one file")
    parser.add_argument("--dictionaries", type=Path, default=DICTIONARIES, help="folder with FIX40.xml ... FIXT11.xml")
    parser.add_argument("--port", type=int, default=0, help="where the acceptor listens; any free port without")
    given = parser.parse_args()
    folder = given.definitions
    files = [folder] if folder.is_file() else sorted(folder.rglob("*.def"))
    if not files:
        parser.error(f"no .def file in {folder}")
    port = given.port or _free_port()
    with tempfile.TemporaryDirectory() as store:
        text = SETTINGS.format(port=port, store=store, dictionaries=given.dictionaries)
        acceptor = FixAcceptor(Echo(), quickfix_settings(text))
        acceptor.start()
        try:
            failed = _report(run_all(files, port, patterns_of(folder)))
        finally:
            acceptor.stop()
    print(f"{len(files) - failed} of {len(files)} definitions pass")
    return 1 if failed else 0


def quickfix_settings(text: str) -> quickfix.SessionSettings:
    """Settings written as in a file of QuickFIX's."""
    settings = quickfix.SessionSettings()
    settings.setFromString(text)
    return settings


def _report(results: Iterator[tuple[Path, str]]) -> int:
    failed = 0
    for path, reason in results:
        if reason:
            failed += 1
            print(f"{path.parent.name}/{path.name}: {reason}", flush=True)
    return failed


def _fields(message: str) -> list[tuple[str, str]]:
    return [field.partition("=")[::2] for field in message.split("\x01")[:-1]]


def _shown(message: str) -> str:
    return message.replace("\x01", "|")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
