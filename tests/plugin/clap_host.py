"""A small CLAP host: it loads a plug-in's binary and calls it as a workstation does."""

import ctypes
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_bool,
    c_char_p,
    c_double,
    c_float,
    c_int16,
    c_int32,
    c_int64,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import Samples

_PARAM_VALUE = 5  # CLAP_EVENT_PARAM_VALUE


class _Version(Structure):
    _fields_ = (("major", c_uint32), ("minor", c_uint32), ("revision", c_uint32))


class _Entry(Structure):
    _fields_ = (
        ("version", _Version),
        ("init", CFUNCTYPE(c_bool, c_char_p)),
        ("deinit", CFUNCTYPE(None)),
        ("get_factory", CFUNCTYPE(c_void_p, c_char_p)),
    )


class _Factory(Structure):
    _fields_ = (
        ("count", CFUNCTYPE(c_uint32, c_void_p)),
        ("descriptor", CFUNCTYPE(c_void_p, c_void_p, c_uint32)),
        ("create", CFUNCTYPE(c_void_p, c_void_p, c_void_p, c_char_p)),
    )


_Request = CFUNCTYPE(None, c_void_p)
_Extension = CFUNCTYPE(c_void_p, c_void_p, c_char_p)


class _Host(Structure):
    _fields_ = (
        ("version", _Version), ("data", c_void_p), ("name", c_char_p), ("vendor", c_char_p),
        ("url", c_char_p), ("release", c_char_p), ("get_extension", _Extension),
        ("request_restart", _Request), ("request_process", _Request), ("request_callback", _Request),
    )  # fmt: skip


class _Plugin(Structure):
    _fields_ = (
        ("descriptor", c_void_p), ("data", c_void_p), ("init", CFUNCTYPE(c_bool, c_void_p)),
        ("destroy", _Request), ("activate", CFUNCTYPE(c_bool, c_void_p, c_double, c_uint32, c_uint32)),
        ("deactivate", _Request), ("start_processing", CFUNCTYPE(c_bool, c_void_p)),
        ("stop_processing", _Request), ("reset", _Request),
        ("process", CFUNCTYPE(c_int32, c_void_p, c_void_p)), ("get_extension", _Extension),
        ("on_main_thread", _Request),
    )  # fmt: skip


class _AudioBuffer(Structure):
    _fields_ = (
        ("data32", POINTER(POINTER(c_float))), ("data64", c_void_p), ("channels", c_uint32),
        ("latency", c_uint32), ("constant_mask", c_uint64),
    )  # fmt: skip


class _Process(Structure):
    _fields_ = (
        ("steady_time", c_int64), ("frames", c_uint32), ("transport", c_void_p), ("inputs", c_void_p),
        ("outputs", c_void_p), ("input_count", c_uint32), ("output_count", c_uint32), ("in_events", c_void_p),
        ("out_events", c_void_p),
    )  # fmt: skip


class _ParamValue(Structure):
    _fields_ = (
        ("size", c_uint32), ("time", c_uint32), ("space", c_uint16), ("type", c_uint16), ("flags", c_uint32),
        ("param", c_uint32), ("cookie", c_void_p), ("note", c_int32), ("port", c_int16), ("channel", c_int16),
        ("key", c_int16), ("value", c_double),
    )  # fmt: skip


_Size, _Get = CFUNCTYPE(c_uint32, c_void_p), CFUNCTYPE(c_void_p, c_void_p, c_uint32)
_Push = CFUNCTYPE(c_bool, c_void_p, c_void_p)


class _InputEvents(Structure):
    _fields_ = (("context", c_void_p), ("size", _Size), ("get", _Get))


class _OutputEvents(Structure):
    _fields_ = (("context", c_void_p), ("try_push", _Push))


class _Latency(Structure):
    _fields_ = (("get", CFUNCTYPE(c_uint32, c_void_p)),)


_Transfer = CFUNCTYPE(c_int64, c_void_p, c_void_p, c_uint64)


class _Stream(Structure):
    _fields_ = (("context", c_void_p), ("transfer", _Transfer))


class _State(Structure):
    _fields_ = (
        ("save", CFUNCTYPE(c_bool, c_void_p, c_void_p)),
        ("load", CFUNCTYPE(c_bool, c_void_p, c_void_p)),
    )


class ClapPlugin:
    """One instance of a plug-in, active."""

    def __init__(self, path: Path, identity: str, rate: int, channels: int) -> None:
        self._entry = _Entry.in_dll(ctypes.CDLL(str(path)), "clap_entry")
        assert self._entry.init(str(path).encode())
        factory_address = self._entry.get_factory(b"clap.plugin-factory")
        ignore = _Request(lambda _: None)
        # DPF calls the host's `changed` of the latency without asking whether it exists.
        self._latency_calls = ctypes.cast(ignore, c_void_p)

        def host_extension(_: int, name: bytes) -> int | None:
            return ctypes.addressof(self._latency_calls) if name == b"clap.latency" else None

        self._host = _Host(
            _Version(1, 1, 1), None, b"test", b"", b"", b"1", _Extension(host_extension), *[ignore] * 3
        )
        self._address = _Factory.from_address(factory_address).create(
            factory_address, ctypes.addressof(self._host), identity.encode()
        )
        assert self._address
        self._plugin, self.channels = _Plugin.from_address(self._address), channels
        assert self._plugin.init(self._address)
        assert self._plugin.activate(self._address, rate, 1, 8_192)
        assert self._plugin.start_processing(self._address)

    @property
    def latency(self) -> int:
        return int(_Latency.from_address(self._extension("clap.latency")).get(self._address))

    def process(self, samples: Samples, changes: dict[int, float] | None = None) -> Samples:
        """Process one block (channels, samples), with changes of parameters by their number."""
        given, output = np.ascontiguousarray(samples, np.float32), np.empty_like(samples)
        buffers = [self._buffer(wave) for wave in (given, output)]
        size = ctypes.sizeof(_ParamValue)
        events = [
            _ParamValue(size, 0, 0, _PARAM_VALUE, 0, number, None, -1, -1, -1, -1, value)
            for number, value in (changes or {}).items()
        ]
        received = _InputEvents(
            None, _Size(lambda _: len(events)), _Get(lambda _, index: ctypes.addressof(events[index]))
        )
        sent = _OutputEvents(None, _Push(lambda _, __: True))
        addresses = [ctypes.addressof(item) for item in (*buffers, received, sent)]
        process = _Process(-1, samples.shape[1], None, *addresses[:2], 1, 1, *addresses[2:])
        assert self._plugin.process(self._address, ctypes.addressof(process)) > 0
        return output

    def save(self) -> bytes:
        """Return the state."""
        parts: list[bytes] = []

        def write(_: int, data: int, size: int) -> int:
            parts.append(ctypes.string_at(data, size))
            return size

        stream = _Stream(None, _Transfer(write))
        state = _State.from_address(self._extension("clap.state"))
        assert state.save(self._address, ctypes.addressof(stream))
        return b"".join(parts)

    def load(self, content: bytes) -> None:
        """Restore what `save` returned."""
        rest = bytearray(content)

        def read(_: int, data: int, size: int) -> int:
            part = bytes(rest[:size])
            del rest[:size]
            ctypes.memmove(data, part, len(part))
            return len(part)

        stream = _Stream(None, _Transfer(read))
        state = _State.from_address(self._extension("clap.state"))
        assert state.load(self._address, ctypes.addressof(stream))

    def close(self) -> None:
        self._plugin.stop_processing(self._address)
        self._plugin.deactivate(self._address)
        self._plugin.destroy(self._address)

    def _extension(self, name: str) -> int:
        address = self._plugin.get_extension(self._address, name.encode())
        assert address
        return int(address)

    def _buffer(self, samples: Samples) -> Any:
        pointers = (POINTER(c_float) * self.channels)(
            *(wave.ctypes.data_as(POINTER(c_float)) for wave in samples)
        )
        return _AudioBuffer(ctypes.cast(pointers, POINTER(POINTER(c_float))), None, self.channels, 0, 0)
