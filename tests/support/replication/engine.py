"""ClickHouse of the chdb-core wheel as a member of a cluster.

usage: python engine.py CONFIG_DIRECTORY DATA_DIRECTORY INTERSERVER_PORT

The wheel has the code of replicated tables and of ON CLUSTER, but its entry point is that of clickhouse-local, which
leaves out five things that a server does at its start. Here they are made good in the memory of the process, in the
code of one build:

- the address at which other replicas fetch parts: `Context::getInterserverIOAddress` gives this one, and sets the
  scheme;
- the handler of those fetches: the HTTP port serves them, and `/ping`;
- the credentials of fetches, which are none: an empty pair takes the place of a null pointer;
- the worker of ON CLUSTER: the first statement ON CLUSTER makes and starts a `DDLWorker`;
- the threads of backups in S3.

All else, such as queues, quorum, tokens, fetches and merges, is ClickHouse's own. `is_known` tells whether the
installed wheel is that build.
"""

import ctypes
import mmap
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.devstack import engine
from pipeline.devstack.extra import package_directory

BUILD = "chdb-core 26.9.0 for x86-64"
_LIBRARY = "_chdb.abi3.so"
_CODE_SHIFT = 0x1000  # from offsets in the file to addresses of code

# Addresses in the library, and the code that is there.
_INTERSERVER_ADDRESS = 0x147217C0, bytes.fromhex("415653")
_CHOICE_OF_HANDLERS = 0x190973C0, bytes.fromhex("0f84eb020000")
_CREDENTIALS = 0x1860F7C0, bytes.fromhex("488b83c0000000")  # of the fetch of a part
_CREDENTIALS_OF_SWAPS = 0x184FAD38, bytes.fromhex("488b9c2460030000")
_DDL_WORKER = 0x1471E280, bytes.fromhex("5541574156534881ec")
_DDL_ALLOWED = 0x14861040, bytes.fromhex("0fb68710090000c3")
_NEW_DDL_WORKER = 0x14818BC0, bytes.fromhex("5541574156415541")
_START_DDL_WORKER = 0x1481AB00, bytes.fromhex("4157415653")
_BACKUPS_POOL = 0xEA1BC80, bytes.fromhex("415741565348")
_START_POOL = 0xEA1B580, bytes.fromhex("4883ec4848897424")
_SITES = (
    _INTERSERVER_ADDRESS,
    _CHOICE_OF_HANDLERS,
    _CREDENTIALS,
    _CREDENTIALS_OF_SWAPS,
    _DDL_WORKER,
    _DDL_ALLOWED,
    _NEW_DDL_WORKER,
    _START_DDL_WORKER,
    _BACKUPS_POOL,
    _START_POOL,
)
_ZEROS = 0x2715A70  # constants: no user and no password
_STATIC_OBJECTS = range(0x21157CA0, 0x21157CA0 + 0x116E000)

_CONTEXT_BYTES = 0x4000
_DDL_WORKER_BYTES = 0x1000
_BACKUP_THREADS, _BACKUP_QUEUE = 8, 1000
_SCHEME = b"http"


def library() -> Path:
    """Return the path of the wheel's library.

    Raises:
        ConfigError: the extra isn't installed.
    """
    return package_directory("chdb") / _LIBRARY


def is_known() -> bool:
    """True if the installed library is the build whose code this module knows."""
    with library().open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        places = ((content[(start := at - _CODE_SHIFT) : start + len(code)], code) for at, code in _SITES)
        return all(found == code for found, code in places)


class Completion:
    """Completes the engine that is loaded in this process; keep it while the engine runs.

    Args:
        port: HTTP port of this server.
    """

    def __init__(self, port: int) -> None:
        self._base = _base_address()
        self._kept: list[Any] = []
        self._worker = 0
        pool = ctypes.CFUNCTYPE(ctypes.c_void_p)(self._base + _BACKUPS_POOL[0])()
        start = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_size_t] * 3)
        start(self._base + _START_POOL[0])(pool, _BACKUP_THREADS, 0, _BACKUP_QUEUE)
        self._write(_INTERSERVER_ADDRESS, _address_code(port))
        self._write(_CHOICE_OF_HANDLERS, b"\x0f\x84\x80\0\0\0")  # je to the handler of fetches
        for site, lea in ((_CREDENTIALS, b"\x48\x8d\x05"), (_CREDENTIALS_OF_SWAPS, b"\x48\x8d\x1d")):
            code = lea + (_ZEROS - site[0] - 7).to_bytes(4, "little", signed=True)
            self._write(site, code.ljust(len(site[1]), b"\x90"))
        self._write(_DDL_ALLOWED, b"\xb8\1\0\0\0\xc3")  # return true
        callback = self._keep(ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64)(self._ddl_worker))
        target = ctypes.cast(callback, ctypes.c_void_p).value or 0
        self._write(_DDL_WORKER, b"\x48\xb8" + target.to_bytes(8, "little") + b"\xff\xe0")  # jump to the callback

    def _write(self, site: tuple[int, bytes], code: bytes) -> None:
        at, expected = self._base + site[0], site[1]
        if ctypes.string_at(at, len(expected)) != expected:
            raise RuntimeError(f"{library()}: unknown code at {site[0]:#x}, expected that of {BUILD}")
        page = at & -mmap.PAGESIZE
        size = at + len(code) - page
        libc = ctypes.CDLL(None, use_errno=True)
        for protection in (mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC, mmap.PROT_READ | mmap.PROT_EXEC):
            if libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(size), protection):
                raise OSError(ctypes.get_errno(), "mprotect")
            if protection & mmap.PROT_WRITE:
                ctypes.memmove(at, code, len(code))

    def _keep(self, value: Any) -> Any:
        self._kept.append(value)
        return value

    def _ddl_worker(self, context: int) -> int:
        """Return the worker of ON CLUSTER, in the place of `Context::getDDLWorker`; make it first."""
        if not self._worker:
            memory = self._keep(ctypes.create_string_buffer(_DDL_WORKER_BYTES))
            worker = ctypes.addressof(memory) + 63 & -64
            texts = (b"/clickhouse/ddl", b"/clickhouse/replicas", b"distributed_ddl", b"default", b"DDLWorker")
            queue, replicas, prefix, keeper, name = (ctypes.addressof(self._keep(_string(text))) for text in texts)
            make = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, *[ctypes.c_void_p] * 10)
            make(self._base + _NEW_DDL_WORKER[0])(
                worker, 1, queue, replicas, self._global_context(context), 0, 0, prefix, keeper, name, 0, 0
            )
            ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._base + _START_DDL_WORKER[0])(worker)
            self._worker = worker
        return self._worker

    def _global_context(self, context: int) -> int:
        """Return the context among those that a query's context knows to which static objects refer."""
        shared, writable = _word(context), list(_writable())

        def is_context(at: int) -> bool:
            return at % 8 == 0 and any(at in memory for memory in writable) and _word(at) == shared

        known = {_word(context + at) for at in range(8, _CONTEXT_BYTES, 8)}
        known = {at for at in known if is_context(at)}
        size = len(_STATIC_OBJECTS)
        statics = memoryview(ctypes.string_at(self._base + _STATIC_OBJECTS.start, size)).cast("Q")
        found = [at for at in statics if at in known]
        return max(found, key=found.count)


def _address_code(port: int) -> bytes:
    """Return code that sets the scheme in the shared part of a context, and returns the pair of host and port."""
    code = b"\x48\x8b\x16"  # rdx: the shared part, of the context in rsi
    code += b"\x48\xb8" + _SCHEME.ljust(8, b"\0") + b"\x48\x89\x82\x70\x01\0\0"
    code += b"\xc6\x82\x87\x01\0\0" + bytes([len(_SCHEME)])
    host = _string(b"127.0.0.1").raw
    for at in range(0, len(host), 8):
        code += b"\x48\xb8" + host[at : at + 8] + b"\x48\x89\x47" + bytes([at])
    return code + b"\x66\xc7\x47\x18" + port.to_bytes(2, "little") + b"\x48\x89\xf8\xc3"


def _string(text: bytes) -> "ctypes.Array[ctypes.c_char]":
    """Return a short std::string as libc++ keeps it in this build: text, zeros, and the length in the last byte."""
    return ctypes.create_string_buffer(text.ljust(23, b"\0") + bytes([len(text)]), 24)


def _word(address: int) -> int:
    return ctypes.c_uint64.from_address(address).value


def _mappings() -> Iterator[list[str]]:
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        yield line.split()


def _base_address() -> int:
    """Return the address at which the library is loaded."""
    return next(int(row[0].split("-")[0], 16) for row in _mappings() if row[-1].endswith(_LIBRARY))


def _writable() -> Iterator[range]:
    for row in _mappings():
        if row[1].startswith("rw"):
            start, stop = (int(address, 16) for address in row[0].split("-"))
            yield range(start, stop - 8)


if __name__ == "__main__":
    completed: list[Completion] = []
    code = engine.main(
        Path(sys.argv[1]), Path(sys.argv[2]).resolve(), lambda: completed.append(Completion(int(sys.argv[3])))
    )
    os._exit(code)  # some threads of the engine outlive the main thread
