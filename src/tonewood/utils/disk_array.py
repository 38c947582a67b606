"""Tracks kept on disk while a recording is worked on; nothing of them has a name or stays."""

import shutil
import tempfile
import threading
import weakref
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.errors import OutputError, printable
from tonewood.utils.atomic_write import DISK_FULL_ERRNOS

_COPY_BYTES = 1 << 20  # bytes at a time


class DiskArray:
    """A track [row, frame], or [frame], that is appended to and read in parts.

    Parameters
    ----------
    rows : int or None
        None for a track of single values, such as a waveform.
    folder : Path, optional
        Whose disk to use; the system's own place for such files if none.
    dtype : numpy dtype
    """

    def __init__(self, rows: int | None, folder: Path | None = None, dtype: str = "float32") -> None:
        # Without a name from the start, so that not even a sudden death leaves anything behind.
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as we do
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()  # place and content belong together
        self._folder = folder or Path(tempfile.gettempdir())
        self.rows, self._dtype = rows, np.dtype(dtype)
        self._bytes = self._dtype.itemsize * (rows or 1)
        self.frames = 0

    def append(self, values: Tensor | NDArray[np.generic]) -> None:
        """Add the moments of values [row, frame] or [frame]."""
        array = np.asarray(values).astype(self._dtype, copy=False)
        assert array.shape[:-1] == (() if self.rows is None else (self.rows,))
        try:
            with self._lock:
                self._file.seek(self.frames * self._bytes)
                self._file.write(np.ascontiguousarray(array.T).data)
                self._file.flush()
        except OSError as error:
            if error.errno in DISK_FULL_ERRNOS:
                raise OutputError(
                    f"the disk of {printable(self._folder)} is full: free some space or name another "
                    "output folder"
                ) from error
            raise
        self.frames += array.shape[-1]

    def read(self, start: int, stop: int) -> Tensor:
        """Values of the moments from `start` up to `stop`."""
        content = bytearray((min(stop, self.frames) - start) * self._bytes)
        with self._lock:
            self._file.seek(start * self._bytes)
            self._file.readinto(content)
        flat = torch.from_numpy(np.frombuffer(content, self._dtype))
        return flat if self.rows is None else flat.reshape(-1, self.rows).T.contiguous()

    def copy_to(self, file: BinaryIO) -> None:
        """Write all of it to a file, moment by moment, as it is kept."""
        with self._lock:
            self._file.seek(0)
            shutil.copyfileobj(self._file, file, _COPY_BYTES)
