"""What lies at a path: files, folders and ZIP members as units of bytes, decompressed and decoded with limits.

Nothing here knows a format. A unit that cannot be opened raises `IntakeError`, and costs itself alone.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import zstandard

MAX_LINE = 16 << 20  # bytes; the longest of 244,805 real rows has 0.4 MB
MAX_RATIO, RATIO_FROM = 200, 64 << 20  # real dumps shrink 3 to 30 times; a bomb shows only after some bytes
MAX_UNPACKED = 64 << 30  # of one file or member
SAMPLE = 1 << 18  # bytes by which encoding and format are guessed
PACKED = (".gz", ".zst", ".xz", ".bz2")
SKIPPED = frozenset(["__MACOSX", ".git", ".obsidian", ".trash", "node_modules", ".ipynb_checkpoints"])
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What files of Taiwan and its neighbours come in; each is tried whole before statistics are asked.
ENCODINGS = ("utf_8", "cp950", "big5hkscs", "gb18030", "shift_jis")
WIDE = frozenset(["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])  # `\n` is no byte of its own
BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError, zipfile.BadZipFile)


class IntakeError(ValueError):
    """A file, or a place in it, that cannot be taken in: what, where, and what to do about it."""

    def __init__(self, name: str, why: str, cure: str, row: int | None = None) -> None:
        place = f"{name}, row {row}" if row else name
        super().__init__(f"{place}: {why}. {cure}")
        self.name, self.why, self.cure, self.row = name, why, cure, row


@dataclass(frozen=True, slots=True)
class Unit:
    """One file, or one member of an archive, laid out as a plain file at `path`."""

    name: str  # below the folder that was given; a member stands after `!`
    path: Path
    modified: datetime

    @property
    def suffix(self) -> str:
        """The suffix of the content, in lower case: `.jsonl` of `dump.JSONL.gz`."""
        name = self.name.rpartition("!")[2].lower()
        for packed in PACKED:
            name = name.removesuffix(packed)
        return PurePosixPath(name).suffix

    @property
    def packed(self) -> str:
        """`.gz` and the like, or nothing."""
        return next((packed for packed in PACKED if self.name.lower().endswith(packed)), "")

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name.rpartition("!")[2]).name.split(".", 1)[0]


def units(path: Path, problems: list[IntakeError]) -> Iterator[Unit]:
    """Every file at or below `path`, the members of ZIPs too, in order of name; what cannot be opened is reported."""
    for file in walk(path, problems):
        name = file.relative_to(path).as_posix() if file != path else path.name
        unit = Unit(name, file, datetime.fromtimestamp(file.stat().st_mtime, UTC))
        try:
            if _is_archive(unit):
                yield from _members(unit, problems)
            else:
                yield unit
        except IntakeError as error:
            problems.append(error)


def walk(path: Path, problems: list[IntakeError]) -> Iterator[Path]:
    """Files below a folder, hidden ones left out; links to folders are not followed, so that none leads in a circle."""
    if not path.is_dir():
        if not path.is_file():
            why = "a link that leads nowhere" if path.is_symlink() else "no such file"
            raise IntakeError(str(path), why, "Check the path")
        yield path
        return
    for folder, folders, names in os.walk(path, onerror=partial(_denied, problems)):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in SKIPPED)
        links = [(here / name).relative_to(path).as_posix() for name in folders if (here / name).is_symlink()]
        problems += [
            IntakeError(name, "a link to a folder is not followed", "Import that folder by its own path")
            for name in links
        ]
        for name in sorted(names):
            file = here / name
            if name.startswith("."):
                continue
            if file.is_file():
                yield file
            else:
                why = "a link that leads nowhere, or in a circle" if file.is_symlink() else "no ordinary file"
                problems.append(IntakeError(file.relative_to(path).as_posix(), why, "Remove it or put a file there"))


def _denied(problems: list[IntakeError], error: OSError) -> None:
    problems.append(IntakeError(str(error.filename), error.strerror or str(error), "Allow this user to read it"))


def _is_archive(unit: Unit) -> bool:
    """A ZIP that is no office document, which is one too."""
    if unit.suffix in (".xlsx", ".xlsm", ".docx", ".ods", ".pptx", ".odt", ".epub"):
        return False
    if unit.suffix in (".tar", ".tgz", ".7z", ".rar"):
        raise IntakeError(
            unit.name, f"archives of kind {unit.suffix} are not opened", "Unpack it, and import the folder"
        )
    with _opened(unit) as file:
        return file.read(4) == b"PK\x03\x04"


def _members(unit: Unit, problems: list[IntakeError]) -> Iterator[Unit]:
    try:
        archive = zipfile.ZipFile(unit.path, metadata_encoding="cp950")  # what Windows in Taiwan writes names in
    except (*BROKEN, LookupError, UnicodeDecodeError) as error:
        try:
            archive = zipfile.ZipFile(unit.path)
        except BROKEN:
            raise IntakeError(
                unit.name, f"the ZIP is damaged or cut short ({error})", "Download or pack it again"
            ) from error
    with archive, tempfile.TemporaryDirectory(prefix="persona-zip-") as folder:
        for number, info in enumerate(sorted(archive.infolist(), key=lambda info: info.filename)):
            parts = PurePosixPath(info.filename.replace("\\", "/")).parts
            if info.is_dir() or any(part.startswith(".") or part in SKIPPED for part in parts[:-1]):
                continue
            name = f"{unit.name}!{'/'.join(parts)}"
            try:
                if parts[-1].startswith("."):
                    continue
                target = Path(folder) / f"{number}{PurePosixPath(parts[-1]).suffix}"
                _unpack(archive, info, target, name)
                member = replace(unit, name=name, path=target)
                with target.open("rb") as file:
                    if file.read(4) == b"PK\x03\x04" and member.suffix == ".zip":
                        raise IntakeError(name, "a ZIP within a ZIP", "Unpack the outer one, and import the folder")
                yield member
                target.unlink(missing_ok=True)
            except IntakeError as error:
                problems.append(error)


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, name: str) -> None:
    if info.flag_bits & 1:
        raise IntakeError(name, "is protected by a password", "Unpack it with the password, and import the folder")
    try:
        with archive.open(info) as source, target.open("wb") as out:
            shutil.copyfileobj(Limited(source, name, info.compress_size), out, 1 << 20)
    except (*BROKEN, NotImplementedError, RuntimeError) as error:
        raise IntakeError(name, f"cannot be unpacked ({error})", "Download or pack the archive again") from error


class Limited(io.RawIOBase):
    """Decoded bytes that stop with an error where they outgrow what they were packed in."""

    def __init__(self, file: IO[bytes], name: str, packed: int) -> None:
        self._file, self._name, self._packed, self._seen = file, name, max(packed, 1), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        # So much as one step gives: what came before a break is not lost with it.
        data = (
            self._file.read1(min(len(buffer), 1 << 16))
            if hasattr(self._file, "read1")
            else self._file.read(len(buffer))
        )
        self._seen += len(data)
        if self._seen > MAX_UNPACKED or (self._seen > RATIO_FROM and self._seen > MAX_RATIO * self._packed):
            raise IntakeError(
                self._name,
                f"unpacks to over {self._seen >> 20} MiB from {self._packed >> 10} KiB, as decompression bombs do",
                "Unpack it yourself if you trust it, and import what it holds",
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


class ZstdFile(io.RawIOBase):
    """Reads zstd frames and raises EOFError where the last one is cut: zstandard's own reader just ends."""

    def __init__(self, path: Path):
        self._file = path.open("rb")
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._fed = False  # something of the current frame was read
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            chunk = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame, self._fed = zstandard.ZstdDecompressor().decompressobj(), False
            chunk = chunk or self._file.read(1 << 16)
            if not chunk:
                if self._fed:
                    raise EOFError("the zstd frame ends early")
                return 0
            self._fed = True
            self._ready = self._frame.decompress(chunk)
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


OPENERS: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open, ".zst": ZstdFile}


def _opened(unit: Unit) -> IO[bytes]:
    """The unit's bytes, decompressed as they are read, within limits."""
    if not unit.packed:
        return unit.path.open("rb")
    inner = cast(IO[bytes], OPENERS[unit.packed](unit.path))
    return io.BufferedReader(Limited(inner, unit.name, unit.path.stat().st_size), 1 << 20)


def head_of(unit: Unit, size: int = SAMPLE) -> bytes:
    """The first bytes, decompressed. Raises `IntakeError` where not even those can be read."""
    try:
        with _opened(unit) as file:
            return file.read(size)
    except BROKEN as error:
        raise IntakeError(unit.name, f"cannot be read ({error})", "Fetch the file again") from error


@contextmanager
def plain(unit: Unit) -> Iterator[Path]:
    """The unit as a plain file, for readers that jump about in it."""
    if not unit.packed:
        yield unit.path
        return
    with tempfile.TemporaryDirectory(prefix="persona-unpacked-") as folder:
        target = Path(folder) / f"{unit.stem}{unit.suffix}"
        try:
            with _opened(unit) as source, target.open("wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
        except BROKEN as error:
            raise IntakeError(unit.name, f"cannot be unpacked ({error})", "Fetch the file again") from error
        yield target


def whole(unit: Unit, limit: int = 256 << 20) -> bytes:
    """All bytes of a unit that is read in one piece."""
    data = head_of(unit, limit + 1)
    if len(data) > limit:
        raise IntakeError(
            unit.name,
            f"is larger than the {limit >> 20} MiB that can be read in one piece",
            "Split it, or make it JSONL",
        )
    return data


def encoding_of(sample: bytes) -> str:
    """The codec of a text file by its first bytes: marks, then NULs, then what decodes and reads most like language."""
    for mark, codec in BOMS:
        if sample.startswith(mark):
            return codec
    nuls = sample.count(b"\0")  # every digit, comma and line end of UTF-16 has one; other text has none
    if nuls > len(sample) // 50 and max(odd := sample[1::2].count(b"\0"), nuls - odd) > 0.7 * nuls:
        return "utf-16-le" if odd > nuls // 2 else "utf-16-be"
    if _decodes(sample, "utf-8"):
        return "utf-8"
    import charset_normalizer

    # A cut character at the end would rule every codec out.
    lines = sample[: sample.rfind(b"\n") + 1] or sample
    best = charset_normalizer.from_bytes(lines, cp_isolation=list(ENCODINGS)).best()
    codec = best.encoding if best else "utf-8"
    return "cp950" if codec == "big5hkscs" and _decodes(sample, "cp950") else codec.replace("utf_8", "utf-8")


def _decodes(sample: bytes, codec: str) -> bool:
    try:
        codecs.getincrementaldecoder(codec)().decode(sample)  # an end within a character is no fault
    except UnicodeDecodeError:
        return False
    return True


def lines_of(unit: Unit, encoding: str | None = None) -> Iterator[tuple[int, str | IntakeError]]:
    """(line number, text without its end) of every line; an error in place of one that is too long or undecodable.

    Raises `IntakeError` where the compression ends early, after the lines before it.
    """
    number = 0
    try:
        with _opened(unit) as file:
            codec = encoding or encoding_of(head_of(unit))
            source = _as_utf8(file, codec) if codec in WIDE else file
            codec = "utf-8" if codec in (*WIDE, "utf-8-sig") else codec
            while line := source.readline(MAX_LINE):
                number += 1
                long = False
                rest = line
                while len(rest) == MAX_LINE and not rest.endswith(b"\n"):
                    rest, long = source.readline(MAX_LINE), True
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if long:
                    yield (
                        number,
                        IntakeError(unit.name, f"a line of more than {MAX_LINE >> 20} MiB", "Split it", number),
                    )
                    continue
                try:
                    yield number, line.decode(codec).rstrip("\r\n")
                except UnicodeDecodeError as error:
                    yield (
                        number,
                        IntakeError(
                            unit.name,
                            f"no {codec} at byte {error.start} of the line",
                            f"Save the file in one encoding, or name it with --encoding (found: {codec})",
                            number,
                        ),
                    )
    except BROKEN as error:
        raise IntakeError(
            unit.name, f"ends early or is damaged after line {number} ({error})", "Fetch the file again", number or None
        ) from error


def _as_utf8(file: IO[bytes], codec: str) -> IO[bytes]:
    """UTF-16 and UTF-32 turned into UTF-8 as it is read; what is no character becomes U+FFFD."""
    return cast(IO[bytes], io.BufferedReader(_Recoder(file, codec), 1 << 16))


class _Recoder(io.RawIOBase):
    def __init__(self, file: IO[bytes], codec: str) -> None:
        self._file, self._decoder = file, codecs.getincrementaldecoder(codec)(errors="replace")
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            chunk = self._file.read(1 << 16)
            self._ready = self._decoder.decode(chunk, final=not chunk).encode("utf-8", "replace")
            if not chunk and not self._ready:
                return 0
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count


def text_of(unit: Unit, encoding: str | None = None) -> str:
    """A whole text file. Raises `IntakeError` where it is no text."""
    data = whole(unit)
    codec = encoding or encoding_of(data[:SAMPLE])
    try:
        return data.decode("utf-8-sig" if codec == "utf-8" else codec)
    except UnicodeDecodeError as error:
        raise IntakeError(
            unit.name, f"no {codec} at byte {error.start}", "Save it as UTF-8, or name its encoding with --encoding"
        ) from error
