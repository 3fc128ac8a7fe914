"""An acceptor of QuickFIX's kept to this machine: by itself it listens on every address, whatever its settings say."""

import logging
import os
import socket
import stat
from contextlib import suppress

log = logging.getLogger(__name__)


def keep_to_loopback(port: int) -> bool:
    """Let this process's listeners at `port` be reached through the loopback device alone, as Linux's kernel sees to.

    False, with a warning, where that cannot be had: not on Linux, or one before 5.7 and not allowed to.
    """
    device, found = getattr(socket, "SO_BINDTODEVICE", 0), False
    for listener in _listeners(port) if device else []:
        with listener:
            try:
                listener.setsockopt(socket.SOL_SOCKET, device, b"lo")
                found = True
            except OSError as error:
                log.warning("FIX port %d listens on every address of this machine: %s", port, error)
                return False
    if not found:
        log.warning("FIX port %d listens on every address of this machine", port)
    return found


def _listeners(port: int) -> list[socket.socket]:
    """Own handles of the sockets of this process that listen for TCP at `port`."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # no socket, or closed meanwhile
            if not stat.S_ISSOCK(os.fstat(int(number)).st_mode):
                continue  # a handle of its own would stay open
            own = socket.socket(fileno=os.dup(int(number)))
            if (
                own.family == socket.AF_INET
                and own.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                and own.getsockname()[1] == port
            ):
                found.append(own)
            else:
                own.close()
    return found
