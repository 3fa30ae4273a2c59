"""Compresses as clients do, and as attackers do."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping

import brotli

from forebay.zstd import zstd

MIB = 1024 * 1024

BROTLI_WINDOW_LOG_MAX = 24


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def gzip(data: bytes) -> bytes:
    return zlib.compress(data, wbits=16 + zlib.MAX_WBITS)


PACK: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": gzip,
    "x-gzip": gzip,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstd.compress,
}
"""One function for each coding."""


def bomb(coding: str, bytes_unpacked: int) -> bytes:
    """Return few bytes that unpack to so many zeros, in whole MiB."""
    return b"".join(_pack_zeros(coding, bytes_unpacked // MIB))


def _pack_zeros(coding: str, mib: int) -> Iterator[bytes]:
    zeros = bytes(MIB)
    if coding == "br":
        packer = brotli.Compressor(quality=5, lgwin=BROTLI_WINDOW_LOG_MAX)
        yield from (packer.process(zeros) for _ in range(mib))
        yield packer.finish()
    elif coding == "zstd":
        shrunk = zstd.ZstdCompressor()
        yield from (shrunk.compress(zeros) for _ in range(mib))
        yield shrunk.flush()
    else:
        inflated = zlib.compressobj(9, wbits=zlib.MAX_WBITS if coding == "deflate" else 16 + zlib.MAX_WBITS)
        yield from (inflated.compress(zeros) for _ in range(mib))
        yield inflated.flush()
