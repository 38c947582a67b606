"""Arrays on disk, appended to and read while a recording is processed."""

import shutil
import tempfile
import threading
import weakref
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from tonewood.errors import OutputError, failure_reason, printable
from tonewood.utils.atomic_write import DISK_FULL_ERRNOS

_COPY_BYTES = 1 << 20


class DiskArray:
    """Time series [row, frame], or [frame] if `rows` is None, in an unnamed temporary file.

    The file is in `folder`, or in the system's temporary folder.
    """

    def __init__(self, rows: int | None, folder: Path | None = None, dtype: str = "float32") -> None:
        self._folder = folder or Path(tempfile.gettempdir())
        try:
            # The file has no name, so nothing remains even if the process is killed.
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - open as long as the array
        except OSError as error:
            raise OutputError(
                f"{printable(self._folder)} cannot be written to ({failure_reason(error)}): name another "
                "output folder"
            ) from error
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()  # seek and read or write must not be separated
        self.rows, self._dtype = rows, np.dtype(dtype)
        self._frame_bytes = self._dtype.itemsize * (rows or 1)
        self.frames = 0

    def append(self, values: NDArray[np.generic]) -> None:
        """Append frames [row, frame] or [frame]."""
        array = values.astype(self._dtype, copy=False)
        assert array.shape[:-1] == (() if self.rows is None else (self.rows,))
        try:
            with self._lock:
                self._file.seek(self.frames * self._frame_bytes)
                # Frame by frame, so that new frames follow the old ones in the file.
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

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the values from `start` to before `stop`."""
        values = self.read_frames(start, stop)
        return values if self.rows is None else np.ascontiguousarray(values.T)

    def read_frames(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the same as they are on disk: [frame, row], or [frame]."""
        content = bytearray((min(stop, self.frames) - start) * self._frame_bytes)
        with self._lock:
            self._file.seek(start * self._frame_bytes)
            self._file.readinto(content)
        flat = np.frombuffer(content, self._dtype)
        return flat if self.rows is None else flat.reshape(-1, self.rows)

    def copy_to(self, file: BinaryIO) -> None:
        """Copy the values to a file, frame by frame."""
        with self._lock:
            self._file.seek(0)
            shutil.copyfileobj(self._file, file, _COPY_BYTES)
