"""Files: what a file is, by its content; which files a path names; their bytes as UTF-8, unpacked."""

from __future__ import annotations

import codecs
import glob
import gzip
import io
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tabrun.cli.errors import UserError, check_file

KINDS = {  # first bytes: what such a file is
    **{b"PAR1": "Parquet", b"ARROW1": "Arrow", b"\xd0\xcf\x11\xe0": "Excel", b"SQLite format 3": "SQLite"},
    **{b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ": "xz", b"BZh": "bzip2", b"%PDF": "PDF"},
}
READ = ("CSV", "Parquet", "Arrow", "Excel", "JSON lines", "gzip", "zstd", "zip")
ENDINGS = (".csv", ".tsv", ".txt", ".parquet", ".pq", ".gz", ".zst", ".zip")  # of the files that a folder is read for


def kind_of(path: str) -> str:
    """CSV, Parquet, Arrow, Excel, JSON lines, gzip, zstd or zip; UserError for what is none of these."""
    check_file(path)
    with open(path, "rb") as file:
        first = file.read(64)
    kind = next((kind for mark, kind in KINDS.items() if first.startswith(mark)), "CSV")
    if first.startswith(b"PK\x03\x04"):
        with unzipped(path) as archive:
            kind = "Excel" if "[Content_Types].xml" in archive.namelist() else "zip"
    elif kind == "CSV" and (first.lstrip(b"\xef\xbb\xbf \n\r").startswith(b'{"') or path.endswith(".ndjson")):
        kind = "JSON lines"
    elif kind == "CSV" and path.endswith((".parquet", ".pq")):
        kind = "Parquet"  # damaged: polars says how
    if kind not in READ:
        raise UserError(f"{path} is a file of {kind}: unpack it, or save the table as CSV or Parquet")
    return kind


def unzipped(path: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path} is a damaged zip archive: {error}") from None


def files_of(path: str | Sequence[str]) -> list[str]:
    """The files of a list, of a folder or of a pattern such as data/*.csv, in the order of their names."""
    if not isinstance(path, str):
        return [file for one in path for file in files_of(str(one))]
    path = os.path.expanduser(path)
    if Path(path).is_dir():
        found = [str(file) for file in sorted(Path(path).iterdir()) if file.name.lower().endswith(ENDINGS)]
        if not found:
            raise UserError(f"{path} is a folder without CSV or Parquet files: name a file")
        return found
    if glob.has_magic(path) and not Path(path).exists():
        if not (found := sorted(glob.glob(path))):
            raise UserError(f"there is no file {path}")
        return found
    return [path]


def opened(path: str, encoding: str | None = None) -> BinaryIO:
    """The bytes of a text file, unpacked where it is packed, in UTF-8 whatever it is written in."""
    kind, codec = kind_of(path), encoding and codec_of(encoding)
    made: Any
    if kind == "gzip":
        made = gzip.GzipFile(path)
    elif kind == "zip":
        made = one_of(path)
    elif kind == "zstd":
        made = io.BufferedReader(unpacked_zstd(path))
    else:
        made = io.BufferedReader(io.FileIO(path))
    with readable(path, encoding):
        if codec is None and made.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            codec = "utf-16"
    if codec in (None, "utf-8", "ascii"):
        return made
    return codecs.EncodedFile(made, "utf-8", codec)  # type: ignore[return-value]


@contextmanager
def readable(path: str, encoding: str | None) -> Iterator[None]:
    """Turns what is said of a damaged file, or of bytes that are no text of this encoding, into a UserError."""
    try:
        yield
    except UnicodeError as error:
        raise UserError(f"{path} is no text in {encoding or 'UTF-16'}: {error}: data.read.encoding=...") from None
    except (EOFError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is a damaged {kind_of(path)} file: {error}") from None
    except Exception as error:  # zstandard's own, which is not imported where it is not needed
        if type(error).__name__ != "ZstdError":
            raise
        raise UserError(f"{path} is a damaged zstd file: {error}") from None


def codec_of(encoding: str) -> str:
    try:
        return codecs.lookup(encoding).name
    except LookupError:
        raise UserError(f"data.read.encoding={encoding} is no encoding: say utf-8, utf-16, cp1252, latin-1") from None


def unpacked_zstd(path: str) -> Any:
    try:
        import zstandard
    except ImportError:
        raise UserError(f"{path} is packed by zstd: pip install zstandard, or unpack it") from None
    return zstandard.ZstdDecompressor().stream_reader(io.FileIO(path))


def one_of(path: str) -> Any:
    with unzipped(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
        if len(names) != 1:
            raise UserError(f"{path} holds {len(names)} files, not one: {', '.join(names[:5])}: unpack it")
        try:
            return archive.open(names[0])  # which keeps the file open
        except (RuntimeError, NotImplementedError) as error:  # one with a password, or packed as zipfile cannot
            raise UserError(f"{path}: {error}") from None
