"""A small LV2 host: it loads a plug-in's binary and calls it as a workstation does.

Debian's `lv2file` and `lv2apply` do not offer the features `worker` and `options`, which DPF needs for the
state, and `jalv` needs a JACK server.
"""

import ctypes
from collections.abc import Iterable
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_char_p,
    c_double,
    c_float,
    c_int,
    c_size_t,
    c_uint32,
    c_void_p,
)
from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import Samples

_EXT = "http://lv2plug.in/ns/ext/"
_ATOM_CAPACITY = 4_096


class _Feature(Structure):
    _fields_ = (("uri", c_char_p), ("data", c_void_p))


class _Option(Structure):
    _fields_ = (
        ("context", c_int), ("subject", c_uint32), ("key", c_uint32), ("size", c_uint32), ("type", c_uint32),
        ("value", c_void_p),
    )  # fmt: skip


class _Callback(Structure):
    """A pointer to host data, and a function of the host."""

    _fields_ = (("handle", c_void_p), ("function", c_void_p))


class _Descriptor(Structure):
    _fields_ = (
        ("uri", c_char_p),
        ("instantiate", CFUNCTYPE(c_void_p, c_void_p, c_double, c_char_p, c_void_p)),
        ("connect_port", CFUNCTYPE(None, c_void_p, c_uint32, c_void_p)),
        ("activate", CFUNCTYPE(None, c_void_p)),
        ("run", CFUNCTYPE(None, c_void_p, c_uint32)),
        ("deactivate", CFUNCTYPE(None, c_void_p)),
        ("cleanup", CFUNCTYPE(None, c_void_p)),
        ("extension_data", CFUNCTYPE(c_void_p, c_char_p)),
    )


_Store = CFUNCTYPE(c_int, c_void_p, c_uint32, c_void_p, c_size_t, c_uint32, c_uint32)
_Retrieve = CFUNCTYPE(c_void_p, c_void_p, c_uint32, POINTER(c_size_t), POINTER(c_uint32), POINTER(c_uint32))


class _State(Structure):
    _fields_ = (
        ("save", CFUNCTYPE(c_int, c_void_p, _Store, c_void_p, c_uint32, c_void_p)),
        ("restore", CFUNCTYPE(c_int, c_void_p, _Retrieve, c_void_p, c_uint32, c_void_p)),
    )


class Lv2Plugin:
    """One instance of a plug-in; ports are audio in, audio out, two of atoms, latency, parameters."""

    def __init__(self, bundle: Path, rate: int, channels: int, parameters: Iterable[float]) -> None:
        self.channels = channels
        self._uris: list[str] = []
        self._work: list[bytes] = []
        library = ctypes.CDLL(str(bundle / f"{bundle.stem}.so"))
        library.lv2_descriptor.restype = POINTER(_Descriptor)
        self._descriptor = library.lv2_descriptor(0).contents
        self._keep: list[Any] = []  # what the plug-in points to
        features = self._features()
        self._handle = self._descriptor.instantiate(
            ctypes.addressof(self._descriptor), rate, f"{bundle}/".encode(), ctypes.addressof(features)
        )
        assert self._handle
        self._atoms = [(c_uint32 * _ATOM_CAPACITY)() for _ in range(2)]
        self._latency = c_float()
        self.parameters = [c_float(value) for value in parameters]
        ports = [*self._atoms, self._latency, *self.parameters]
        for index, port in enumerate(ports, start=2 * channels):
            self._descriptor.connect_port(self._handle, index, ctypes.addressof(port))

    def _features(self) -> Any:
        def map_uri(_: int, uri: bytes) -> int:
            return self.urid(uri.decode())

        def schedule(_: int, size: int, data: int) -> int:
            self._work.append(ctypes.string_at(data, size))
            return 0

        map_function = CFUNCTYPE(c_uint32, c_void_p, c_char_p)(map_uri)
        schedule_function = CFUNCTYPE(c_int, c_void_p, c_uint32, c_void_p)(schedule)
        length = c_int(8_192)
        key, kind = self.urid(f"{_EXT}buf-size#maxBlockLength"), self.urid(f"{_EXT}atom#Int")
        options = (_Option * 2)(_Option(0, 0, key, 4, kind, ctypes.addressof(length)))
        callbacks = [
            _Callback(None, ctypes.cast(function, c_void_p)) for function in (map_function, schedule_function)
        ]
        names = ("urid#map", "worker#schedule", "options#options")
        data = [ctypes.addressof(item) for item in (*callbacks, options)]
        features = [_Feature(f"{_EXT}{name}".encode(), item) for name, item in zip(names, data, strict=True)]
        pointers = (c_void_p * 4)(*(ctypes.addressof(feature) for feature in features))
        self._keep += [map_function, schedule_function, length, options, callbacks, features, pointers]
        return pointers

    def urid(self, uri: str) -> int:
        """Return the number that stands for a URI."""
        if uri not in self._uris:
            self._uris.append(uri)
        return self._uris.index(uri) + 1

    @property
    def latency(self) -> int:
        return round(self._latency.value)

    def activate(self) -> None:
        self._descriptor.activate(self._handle)

    def deactivate(self) -> None:
        self._descriptor.deactivate(self._handle)

    def process(self, samples: Samples) -> Samples:
        """Process one block (channels, samples)."""
        given, output = np.ascontiguousarray(samples, np.float32), np.empty_like(samples)
        for channel in range(self.channels):
            self._descriptor.connect_port(self._handle, channel, given[channel].ctypes.data)
            self._descriptor.connect_port(self._handle, self.channels + channel, output[channel].ctypes.data)
        sequence = self.urid(f"{_EXT}atom#Sequence")
        self._atoms[0][:4] = [8, sequence, 0, 0]
        self._atoms[1][:2] = [4 * _ATOM_CAPACITY - 8, sequence]
        self._descriptor.run(self._handle, samples.shape[1])
        return output

    def save(self) -> dict[str, bytes]:
        """Return the state by key."""
        saved: dict[str, bytes] = {}

        def store(_: int, key: int, value: int, size: int, _type: int, _flags: int) -> int:
            saved[self._uris[key - 1]] = ctypes.string_at(value, size)
            return 0

        assert self._state().save(self._handle, _Store(store), None, 0, None) == 0
        return saved

    def restore(self, state: dict[str, bytes]) -> None:
        """Restore what `save` returned."""
        buffers = {key: ctypes.create_string_buffer(value, len(value)) for key, value in state.items()}

        def retrieve(_: int, key: int, size: Any, kind: Any, flags: Any) -> int | None:
            name = self._uris[key - 1]
            if name not in buffers:
                return None
            size[0], flags[0] = len(buffers[name]), 0
            kind[0] = self.urid(f"{_EXT}atom#Path" if name.endswith("model-file") else f"{_EXT}atom#String")
            return ctypes.addressof(buffers[name])

        assert self._state().restore(self._handle, _Retrieve(retrieve), None, 0, None) == 0

    def _state(self) -> _State:
        return _State.from_address(self._descriptor.extension_data(f"{_EXT}state#interface".encode()))

    def close(self) -> None:
        self._descriptor.cleanup(self._handle)
