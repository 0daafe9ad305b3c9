"""Allocator settings that keep large temporaries mapped.

glibc returns every block above 32 MiB at most (its dynamic limit) to the kernel on free, so that a
network whose maps are hundreds of megabytes faults each page in again on every layer: a third of
the CPU time of SAM on a CPU. Keeping freed blocks trades that for a resident size that stays at its
peak, which the peak-memory figures of a process do not notice.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST = 2**31 - 1  # mallopt takes an int


@cache
def keep_freed_memory() -> bool:
    """Make malloc reuse large blocks instead of returning them to the kernel.

    Acts on this process, from now on. Does nothing where the C library is not glibc, or where the
    environment already sets the thresholds.

    Returns
    -------
    bool
        Whether the settings were taken.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  (absent from musl)
        mallopt = library.mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(name, _LARGEST) for name in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))
