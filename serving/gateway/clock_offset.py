"""How far this machine's clock may be from UTC, as the kernel's time discipline says (adjtimex, ntp_gettime(3)).

What disciplines the clock (chrony, ntpd, systemd-timesyncd, a hypervisor) tells the kernel its remaining offset and an
estimate of its error. A kernel that says that nobody disciplines it knows no offset: none is measured, and the control
`clock` denies.
"""

import ctypes
import ctypes.util

STA_UNSYNC = 0x0040
STA_NANO = 0x2000
TIME_ERROR = 5


class _Timex(ctypes.Structure):
    _fields_ = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time_s", ctypes.c_long),
        ("time_us", ctypes.c_long),
        ("rest", ctypes.c_long * 32),
    ]


def kernel_offset_ns() -> int | None:
    """Remaining offset plus estimated error, ns; None where the clock is not disciplined or the kernel cannot say."""
    try:
        library = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
        timex = _Timex()
        state = library.adjtimex(ctypes.byref(timex))
    except (OSError, AttributeError):
        return None
    if state < 0 or state == TIME_ERROR or timex.status & STA_UNSYNC:
        return None
    offset_ns = timex.offset if timex.status & STA_NANO else timex.offset * 1000
    return abs(int(offset_ns)) + int(timex.esterror) * 1000
