"""A layer under SQLite in this process: it asks a policy before each step that changes a file, and tells it after.

SQLite reaches its files through a VFS (https://sqlite.org/vfs.html). This one is a copy of the default VFS with `xOpen`
and `xDelete` replaced; each file that it opens keeps its own methods but for `xWrite`, `xTruncate` and `xSync`. It is
made the default, so code under test that calls `sqlite3.connect(path)` goes through it unchanged. `os.fsync`,
`os.fdatasync` and `os.pwrite` of Python are asked about too: to the disk they are the same steps.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import enum
import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

WATCHED = 0x00000100 | 0x00000800 | 0x00080000
"""SQLITE_OPEN_MAIN_DB, SQLITE_OPEN_MAIN_JOURNAL and SQLITE_OPEN_WAL: the files that make up a database."""

METHODS_VERSION = 3

NAME = "faulty"
"""The name of the layer in SQLite."""


class Operation(enum.StrEnum):
    """A step that changes a file, or makes sure that a change is on the disk."""

    WRITE = "write"
    TRUNCATE = "truncate"
    SYNC = "sync"
    DELETE = "delete"


class Fault(NamedTuple):
    """A failure of a step.

    Attributes:
        code: the result that SQLite gets.
        written_bytes: the bytes of a write that are in the file all the same.
    """

    code: int
    written_bytes: int = 0


class Policy:
    """Decides which steps fail, and is told of the steps that were done; this one lets everything pass.

    It is called in the thread that takes the step.
    """

    def decide(self, operation: Operation, path: str, offset: int, length: int) -> Fault | None:
        """Return the failure of a step, None if it is to be done; a file is truncated to `length`."""
        del operation, path, offset, length
        return None

    def opened(self, path: str) -> None:
        """Hear that a file was opened, and made if there was none."""

    def written(self, path: str, offset: int, data: bytes) -> None:
        """Hear that a file was written to."""

    def truncated(self, path: str, size: int) -> None:
        """Hear that a file was cut to a size."""

    def synced(self, path: str) -> None:
        """Hear that a file or a folder was synced."""

    def deleted(self, path: str) -> None:
        """Hear that a file was deleted."""


class NotInUse(Exception):
    """SQLite does not go through the layer, so a test of it would show nothing."""


@contextlib.contextmanager
def faulty_files(policy: Policy) -> Iterator[FaultyFiles]:
    """Have the policy asked about every database that is opened from now on, by anybody in this process.

    The policy may be replaced by another one meanwhile.

    Raises:
        NotInUse: SQLite does not go through the layer.
    """
    layer = FaultyFiles(policy)
    # SQLite calls it as long as a file is open that was opened through it, and that may be for ever.
    _never_freed.append(layer)
    layer.register()
    try:
        _check_use()
        with (
            mock.patch("os.fsync", layer.wrap(os.fsync)),
            mock.patch("os.fdatasync", layer.wrap(os.fdatasync)),
            mock.patch("os.pwrite", layer.pwrite),
        ):
            yield layer
    finally:
        layer.unregister()
        if layer.failures:
            raise layer.failures[0]


class _Vfs(ctypes.Structure):
    """`sqlite3_vfs`."""


class _Methods(ctypes.Structure):
    """`sqlite3_io_methods`."""


class _File(ctypes.Structure):
    """`sqlite3_file`."""

    _fields_ = (("methods", ctypes.POINTER(_Methods)),)


_OPEN = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
_DELETE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int)
_WRITE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64)
_TRUNCATE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int64)
_SYNC = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)


def _as_they_are(names: str) -> list[tuple[str, Any]]:
    return [(name, ctypes.c_void_p) for name in names.split()]


_Vfs._fields_ = (
    ("version", ctypes.c_int),
    ("file_bytes", ctypes.c_int),
    ("path_bytes_max", ctypes.c_int),
    *_as_they_are("next"),
    ("name", ctypes.c_char_p),
    *_as_they_are("data"),
    ("open", _OPEN),
    ("delete", _DELETE),
    *_as_they_are("access full_pathname dl_open dl_error dl_sym dl_close randomness sleep current_time last_error"),
    *_as_they_are("current_time_int64 set_system_call get_system_call next_system_call"),
)
_Methods._fields_ = (
    ("version", ctypes.c_int),
    *_as_they_are("close read"),
    ("write", _WRITE),
    ("truncate", _TRUNCATE),
    ("sync", _SYNC),
    *_as_they_are("file_size lock unlock check_reserved_lock file_control sector_size device_characteristics"),
    *_as_they_are("shm_map shm_lock shm_barrier shm_unmap fetch unfetch"),
)


class _OpenFile(NamedTuple):
    path: str
    original: _Methods


class FaultyFiles:
    """A VFS whose files ask a policy.

    Attributes:
        policy: the one that decides.
        failures: errors of this layer itself, which SQLite cannot be told.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.failures: list[BaseException] = []
        self._library = _load_library()
        self._address = self._library.sqlite3_vfs_find(None)
        self._original = _Vfs.from_address(self._address)
        self._files: dict[int, _OpenFile] = {}
        self._methods: dict[int, _Methods] = {}
        self._write_method = _WRITE(self._noting_failures(self._write, sqlite3.SQLITE_IOERR_WRITE))
        self._truncate_method = _TRUNCATE(self._noting_failures(self._truncate, sqlite3.SQLITE_IOERR_TRUNCATE))
        self._sync_method = _SYNC(self._noting_failures(self._sync, sqlite3.SQLITE_IOERR_FSYNC))
        self._vfs = _Vfs.from_buffer_copy(self._original)
        self._vfs.next = None
        self._vfs.name = NAME.encode()
        self._vfs.open = _OPEN(self._noting_failures(self._open, sqlite3.SQLITE_CANTOPEN))
        self._vfs.delete = _DELETE(self._noting_failures(self._delete, sqlite3.SQLITE_IOERR_DELETE))

    def register(self) -> None:
        self._library.sqlite3_vfs_register(ctypes.byref(self._vfs), 1)

    def unregister(self) -> None:
        self._library.sqlite3_vfs_unregister(ctypes.byref(self._vfs))
        self._library.sqlite3_vfs_register(self._address, 1)

    def wrap(self, sync: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return `os.fsync`, or the like, that asks the policy first."""

        def sync_if_allowed(file: Any) -> None:
            path = _path_of(file if isinstance(file, int) else file.fileno())
            if self.policy.decide(Operation.SYNC, path, 0, 0):
                raise OSError(errno.EIO, os.strerror(errno.EIO), path)
            sync(file)
            self.policy.synced(path)

        return sync_if_allowed

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
        """Write like `os.pwrite`, once the policy was asked."""
        path = _path_of(descriptor)
        fault = self.policy.decide(Operation.WRITE, path, offset, len(data))
        if fault:
            data = data[: fault.written_bytes]
        if data:
            data = data[: _pwrite(descriptor, data, offset)]
            self.policy.written(path, offset, data)
        if fault:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return len(data)

    def _noting_failures(self, method: Callable[..., int], code: int) -> Callable[..., int]:
        """Return a method that gives SQLite an error code if Python raised an error."""

        def call(*arguments: Any) -> int:
            try:
                return method(*arguments)
            except BaseException as error:  # noqa: BLE001 - ctypes would only print it, and SQLite take it for success
                self.failures.append(error)
                return code

        return call

    def _open(self, _vfs: int, name: int | None, file: int, flags: int, flags_out: int | None) -> int:
        code: int = self._original.open(self._address, name, file, flags, flags_out)
        if code == sqlite3.SQLITE_OK and name and flags & WATCHED:
            path = os.fsdecode(ctypes.string_at(name))
            self._files[file] = _OpenFile(path, self._replace_methods(_File.from_address(file)))
            self.policy.opened(path)
        return code

    def _replace_methods(self, file: _File) -> _Methods:
        """Give a file methods that ask the policy; return its own ones."""
        original: _Methods = file.methods.contents
        if original.version != METHODS_VERSION:
            raise NotInUse(f"the methods of a file have version {original.version}")
        address = ctypes.addressof(original)
        if address not in self._methods:
            asking = _Methods.from_buffer_copy(original)
            asking.write, asking.truncate, asking.sync = self._write_method, self._truncate_method, self._sync_method
            self._methods[address] = asking
        file.methods = ctypes.pointer(self._methods[address])
        return original

    def _write(self, file: int, data: int, length: int, offset: int) -> int:
        path, original = self._files[file]
        fault = self.policy.decide(Operation.WRITE, path, offset, length)
        if fault:
            length = fault.written_bytes
        if length:
            code: int = original.write(file, data, length, offset)
            if code != sqlite3.SQLITE_OK:
                return code
            self.policy.written(path, offset, ctypes.string_at(data, length))
        return fault.code if fault else sqlite3.SQLITE_OK

    def _truncate(self, file: int, size: int) -> int:
        path, original = self._files[file]
        if fault := self.policy.decide(Operation.TRUNCATE, path, 0, size):
            return fault.code
        code: int = original.truncate(file, size)
        if code == sqlite3.SQLITE_OK:
            self.policy.truncated(path, size)
        return code

    def _sync(self, file: int, flags: int) -> int:
        path, original = self._files[file]
        if fault := self.policy.decide(Operation.SYNC, path, 0, 0):
            return fault.code
        code: int = original.sync(file, flags)
        if code == sqlite3.SQLITE_OK:
            self.policy.synced(path)
        return code

    def _delete(self, _vfs: int, name: bytes, with_folder: int) -> int:
        path = os.fsdecode(name)
        if fault := self.policy.decide(Operation.DELETE, path, 0, 0):
            return fault.code
        code: int = self._original.delete(self._address, name, with_folder)
        if code == sqlite3.SQLITE_OK:
            self.policy.deleted(path)
            if with_folder:
                self.policy.synced(str(Path(path).parent))
        return code


_pwrite = os.pwrite


def _path_of(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


_never_freed: list[FaultyFiles] = []


def _load_library() -> ctypes.CDLL:
    name = ctypes.util.find_library("sqlite3")
    if name is None:
        raise NotInUse("there is no shared library of SQLite")
    library = ctypes.CDLL(name)
    library.sqlite3_vfs_find.restype = ctypes.c_void_p
    library.sqlite3_vfs_register.argtypes = (ctypes.c_void_p, ctypes.c_int)
    library.sqlite3_vfs_unregister.argtypes = (ctypes.c_void_p,)
    library.sqlite3_sourceid.restype = ctypes.c_char_p
    return library


def _check_use() -> None:
    """Make sure that Python's SQLite is the library that the layer was registered with, and takes it by default."""
    library = _load_library()
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        (version,) = connection.execute("SELECT sqlite_source_id()").fetchone()
    if library.sqlite3_sourceid().decode() != version:
        raise NotInUse(f"Python uses another SQLite than {library._name}")
    try:
        sqlite3.connect(f"file::memory:?vfs={NAME}", uri=True).close()
    except sqlite3.OperationalError as error:
        raise NotInUse(f"Python uses another copy of {library._name}: {error}") from error
    if _Vfs.from_address(library.sqlite3_vfs_find(None)).name.decode() != NAME:
        raise NotInUse("the layer is not the default VFS")
