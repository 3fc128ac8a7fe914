"""Structured logs: one JSON object a line on stderr, for every process that serves.

    log = logging.getLogger(__name__)
    log.warning("order %d is late", 17, extra={"order_id": 17})

gives `{"ts": "2026-03-02T14:00:00.000001Z", "level": "warning", "process": "gateway", "logger": ..., "message": "order
17 is late", "order_id": 17}`. What `extra` holds becomes fields; what looks like a secret is masked wherever it stands.
"""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import TextIO

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_SECRETS = (
    re.compile(r"(?i)(bearer\s+)[^\s\"',;]+"),
    re.compile(
        r"(?i)((?:token|password|secret|authorization|api[_-]?key)\"?'?\s*[:=]\s*\"?'?)(?!bearer\b)[^\s\"',;&]+"
    ),
    re.compile(r"((?:^|\x01|\|)554=)[^\x01|]+"),  # FIX Password
    re.compile(r"()-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL),
)
_SECRET_NAMES = re.compile(r"(?i)^(?:.*_)?(?:token|password|secret|authorization|private_key)$")
MESSAGE_MAX = 8_192
"""Characters of one field; what is longer is cut, and says so."""


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; never raises, whatever a record holds."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        try:
            message = record.getMessage()
        except Exception as error:  # arguments that do not fit: say what was meant rather than nothing
            message = f"{record.msg!r} with {record.args!r}: {error}"
        moment = datetime.fromtimestamp(record.created, UTC)
        line = {
            "ts": moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": _plain(message),
        }
        for name, value in vars(record).items():
            if name not in _OWN and not name.startswith("_") and name not in line:
                line[name] = "***" if _SECRET_NAMES.match(name) else _plain(value)
        if record.exc_info:
            line["exception"] = _plain(self.formatException(record.exc_info))
        return json.dumps(line, default=lambda value: masked(repr(value)))


def configure(process: str, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send every record of this process to `stream` (stderr) as JSON, in place of whatever was set up before."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):  # one way out, in one format
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger("websockets").setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)


def masked(text: str) -> str:
    """`text` with what looks like a token, a password or a private key masked."""
    for pattern in _SECRETS:
        text = pattern.sub(r"\1***", text)
    return text


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if not isinstance(value, str):
        try:
            value = json.dumps(value)
        except (TypeError, ValueError):
            value = repr(value)
    text = masked(value)
    return text if len(text) <= MESSAGE_MAX else f"{text[:MESSAGE_MAX]} ... ({len(text)} characters)"
