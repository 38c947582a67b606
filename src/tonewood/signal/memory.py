"""What becomes of memory that is done with, where the system lets us say: on Linux."""

import ctypes
import mmap
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch takes a second to load, and the command line asks for this first
    from torch import Tensor

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of mallopt(3)
_PAGEOUT = 21  # of madvise(2)
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def tune_malloc() -> None:
    """Let this process keep memory that it frees, up to a quarter of a gibibyte, for what comes.

    What a part of a recording needs is freed, and needed again for the next one. glibc learns that,
    unless its environment told it to give all back, as Dask's workers are told: then half of the
    time goes into getting it anew. Elsewhere nothing is done.
    """
    tune = getattr(_LIBC, "mallopt", None)
    if tune is not None:
        tune(_MMAP_THRESHOLD, 32 << 20)
        tune(_TRIM_THRESHOLD, 256 << 20)


def trim_malloc() -> None:
    """Give freed memory back to the system.

    glibc keeps what threads freed, in pieces between what is still in use: over a thousand
    recordings it came to 18 GB. Elsewhere nothing is done.
    """
    trim = getattr(_LIBC, "malloc_trim", None)
    if trim is not None:
        trim(0)


def page_out(*tensors: "Tensor") -> None:
    """Let the system have the memory of tensors that are mapped from files, until they are needed.

    Of no other memory anything is lost. Elsewhere nothing is done.
    """
    advise = getattr(_LIBC, "madvise", None)
    if advise is None:
        return
    for tensor in tensors:
        first = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        size = tensor.data_ptr() + tensor.nbytes - first
        if size > 0:
            advise(ctypes.c_void_p(first), ctypes.c_size_t(size), _PAGEOUT)
