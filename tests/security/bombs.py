"""Decompression bombs in well-signed updates, and what each costs the server: `python -m
tests.security.bombs`.

Run in a process of its own, so that what it says of memory is the bombs' doing alone. Prints JSON:
by name, the reason of the refusal and by how many kilobytes the process' largest resident memory
grew.
"""

from __future__ import annotations

import json
import logging
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import zstandard

from tests.parties.cast import Trainer
from tests.security.forge import ZLIB, ZSTD, Forgery, Header, enclosed, same
from tests.security.scene import COHORT, FORMS, SCHEMES, Scene

INFLATED = 2**24
LARGEST = 2**28
LEVELS = range(1, 23)
_ZERO_BLOCK = 2**17  # the largest block of zstd


def zeros(level: int, size: int = INFLATED, declare: bool = True) -> bytes:
    """So many zeros as one zstd frame, which says so or does not."""
    stream = zstandard.ZstdCompressor(level=level, write_content_size=declare).compressobj(
        size=size if declare else -1
    )
    some = bytes(2**20)
    parts = [stream.compress(some) for _ in range(size // len(some))]
    return b"".join(parts) + stream.flush()


def declaring(frame: bytes, size: int) -> bytes:
    """The frame with another content size in its header (RFC 8878, 3.1.1.1)."""
    descriptor = frame[4]
    assert descriptor >> 6 == 2, "a field of four bytes"
    at = 5 + (not descriptor & 32)
    return frame[:at] + struct.pack("<I", size) + frame[at + 4 :]


def blocks(size: int, window: int | None, *kinds: tuple[int, int, bytes]) -> bytes:
    """A frame written by hand: declared size, window descriptor, and blocks of (type, size,
    content)."""
    descriptor = 0x80 if window is not None else 0xA0
    head = struct.pack("<IB", zstandard.MAGIC_NUMBER, descriptor) + (
        b"" if window is None else bytes([window])
    )
    out = [head, struct.pack("<I", size)]
    for i, (kind, length, content) in enumerate(kinds):
        out.append(struct.pack("<I", (i == len(kinds) - 1) | kind << 1 | length << 3)[:3] + content)
    return b"".join(out)


def frames(content: bytes) -> Iterator[tuple[str, bytes]]:
    """By name, streams in the place of one that inflates to `content`."""
    size = len(content)
    for level in LEVELS:
        bomb = zeros(level)
        yield f"level {level}, declares all of it", bomb
        yield f"level {level}, declares the right size", declaring(bomb, size)
        yield f"level {level}, declares nothing", zeros(level, declare=False)
        yield (
            f"level {level}, right content and undeclared",
            zstandard.ZstdCompressor(level=level, write_content_size=False).compress(content),
        )
    good = zstandard.compress(content)
    bomb = zeros(1)
    skippable = struct.pack("<II", 0x184D2A50, 4) + bytes(4)
    yield "a quarter of a gigabyte", zeros(1, LARGEST)
    yield "2^63 bytes, it says", b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**63) + bomb[10:]
    yield "a bomb behind the good frame", good + bomb
    yield "the good frame twice", good * 2
    yield "a bomb before the good frame", bomb + good
    yield "something to skip before", skippable + good
    yield "something to skip behind", good + skippable
    yield "2^32 bytes to skip", struct.pack("<II", 0x184D2A50, 2**32 - 1)
    yield "a dictionary that nobody has", good[:4] + bytes([good[4] | 1, 7]) + good[5:]
    yield "a checksum that is none", good[:4] + bytes([good[4] | 4]) + good[5:] + bytes(4)
    yield "reserved bits", good[:4] + bytes([good[4] | 8]) + good[5:]
    yield "no frame", b""
    yield "another magic", b"\x27" + good[1:]
    run = (1, _ZERO_BLOCK, b"\0")
    yield "a gigabyte in runs", blocks(size, None, *[run] * 8000)
    # 1 KiB, 2 MiB, 8 MiB, 128 MiB, 2 GiB, and more.
    for window in (0x00, 0x58, 0x68, 0x88, 0xA8, 0xF8, 0xFF):
        yield f"runs in a window of {window:#x}", blocks(size, window, *[run] * 8000)
        yield (
            f"right content in a window of {window:#x}, cut short",
            blocks(size, window, (0, 1000, content[:1000])),
        )
    yield "empty blocks", blocks(size, 0x58, *[(0, 0, b"")] * 10_000)
    yield "a block larger than blocks may be", blocks(size, 0x58, (1, 2**20, b"\0"))


def inside(forgery: Forgery) -> Iterator[tuple[str, bytes]]:
    """By name, ciphertexts whose nested objects claim to be compressed."""
    bomb = zeros(19)
    deflated = zlib.compress(bytes(INFLATED), 9)[: 2**16]
    for name, kind, stream in (("zstd", ZSTD, bomb), ("zlib", ZLIB, deflated)):
        for outer, compress in ((Header(), same), (Header(compression=ZSTD), zstandard.compress)):
            open_or_not = "compressed" if outer.compression else "plain"
            for place, inner in (("array", "compress_array"), ("generator", "compress_seed")):
                if place == "generator" and forgery.seed is None:
                    continue
                claim: dict[str, Any] = {
                    place: Header(compression=kind),
                    inner: partial(instead, stream),
                }
                bad = replace(forgery, outer=outer, compress=compress, **claim)
                yield f"{place} of {name}, {open_or_not} outside", bad.write()
                # Of the right size in all, so that no size gives it away.
                bad = replace(bad, compress=partial(cut_to, len(forgery.content), compress))
                yield f"{place} of {name}, padded, {open_or_not} outside", bad.write()
    yield (
        "zlib outside",
        replace(forgery, outer=Header(compression=ZLIB), compress=lambda _: deflated).write(),
    )


def instead(stream: bytes, _: bytes) -> bytes:
    return stream


def cut_to(size: int, compress: Callable[[bytes], bytes], data: bytes) -> bytes:
    return compress(data[:size].ljust(size, b"\0"))


def peak() -> int:
    """The largest resident memory since `forget_peak`, in kilobytes."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def measured(offer: Callable[[bytes], str | None], data: bytes) -> tuple[str | None, int]:
    """What was said, and by how much memory grew at most."""
    forget_peak()
    before = peak()
    return offer(data), peak() - before


def reason_of(read: Callable[..., object], *arguments: object) -> str:
    try:
        return f"taken: {read(*arguments)!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def main() -> None:
    """Offer every bomb."""
    logging.disable()
    found: dict[str, tuple[str | None, int]] = {}
    for scheme in SCHEMES:
        for form in FORMS:
            scene = Scene(SCHEMES[scheme], form)
            forgery = scene.taken_apart(0)
            layout = scene.cast.scheme.layout
            scene.open()
            assert scene.cast.server.receive(scene.good[0]) is None
            zstd_frames = frames(forgery.content) if (scheme, form) == ("bfv", FORMS[-1]) else ()
            bombs = [(name, Header(compression=ZSTD).write(stream)) for name, stream in zstd_frames]
            chunks = [(name, layout.frame(scene.slots[0], seal)) for name, seal in bombs]
            for name, chunk in (*chunks, *inside(forgery)):
                update = scene.update(chunk, scene.chunks[1])
                found[f"{scheme} {form}: {name}"] = measured(scene.cast.server.receive, update)
            scene.finish(*COHORT[1:])
    scene.open()
    cast = scene.cast
    no_update = Trainer(np.zeros(0, np.float32))
    client = cast.client(no_update)

    lists = b"\x81\xa4kind\xdd" + struct.pack(">I", 2**20 - 99) + b"\x90" * (2**20 - 99)
    deep = b"\x81\xa4kind" + b"\x91" * (2**20 - 99)
    for name, header in (("a million lists", lists), ("a million lists within lists", deep)):
        data = enclosed(b"", msgpack.packb([header, bytes(64)]))
        found[f"header: {name}, to a client"] = measured(partial(reason_of, client.handle), data)
        found[f"header: {name}, to the server"] = measured(cast.server.receive, data)
    # That the measure sees what it should: one bomb inflated.
    found["control"] = measured(
        lambda data: str(len(zstandard.decompress(data))), zeros(1, LARGEST)
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
