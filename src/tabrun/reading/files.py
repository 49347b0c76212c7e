"""Files: what a file is, by its content; which files a path names; their bytes as UTF-8, unpacked."""

from __future__ import annotations

import codecs
import glob
import gzip
import io
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from tabrun.cli.errors import UserError, check_file

KINDS = {  # how a file begins: what it is
    **{rb"PAR1": "Parquet", rb"ARROW1": "Arrow", rb"\xff{4}": "Arrow's stream", rb"SQLite format 3": "SQLite"},
    **{rb"\x1f\x8b": "gzip", rb"\x28\xb5\x2f\xfd": "zstd", rb"PK[\x03\x05]": "zip", rb"\xfd7zXZ": "xz"},
    **{rb"\xd0\xcf\x11\xe0": "Excel", rb"%PDF": "PDF", rb"\x89PNG": "PNG", rb"<(!|\?xml|html)": "HTML or XML"},
    **{rb"BZh": "bzip2", rb'(\xef\xbb\xbf)?\s*\{\s*"': "JSON lines", rb"(\xef\xbb\xbf)?\s*\[\s*[\[{]": "JSON"},
}
PACKED = ("gzip", "zstd", "zip")
READ = ("CSV", "Parquet", "Arrow", "Excel", "JSON lines", "JSON", *PACKED)
BEGINNING = 2**13  # bytes by which a text is told from what is none
ENDINGS = (".csv", ".tsv", ".txt", ".parquet", ".pq", ".gz", ".zst", ".zip")  # of the files that a folder is read for


def kind_of(path: str) -> str:
    """One of READ, by its content; UserError for what is none of these."""
    check_file(path)
    with open(path, "rb") as file:
        kind = begun(file.read(64))
    if kind == "zip":
        with unzipped(path) as archive:
            kind = "Excel" if "[Content_Types].xml" in archive.namelist() else "zip"
    elif kind == "CSV" and path.endswith((".parquet", ".pq")):
        kind = "Parquet"  # damaged: polars says how
    if kind not in READ:
        todo = "say data=sql" if kind == "SQLite" else "unpack it, or save the table as CSV or Parquet"
        raise UserError(f"{path} is a file of {kind}: {todo}")
    return kind


def begun(first: bytes) -> str:
    """What a file is that begins so; CSV, if nothing else."""
    return next((kind for mark, kind in KINDS.items() if re.match(mark, first)), "CSV")


def unzipped(path: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path} is a damaged zip archive: {error}") from None


def files_of(path: str | Sequence[str]) -> list[str]:
    """The files of a list, of a folder or of a pattern such as data/*.csv, in the order of their names."""
    if not path:
        raise UserError("data.path names no file")
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
    try:
        with readable(path, encoding):
            first = made.peek(BEGINNING)[:BEGINNING]
        if kind in PACKED and (inner := begun(first)) != "CSV":
            raise UserError(f"{path} holds a file of {inner}, not CSV: unpack it")
        if codec is None and first[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            codec = "utf-16"
        check_text(path, first, codec, encoding)
    except UserError:
        made.close()
        raise
    if codec in (None, "utf-8", "ascii"):
        return made
    return codecs.EncodedFile(made, "utf-8", codec)  # type: ignore[return-value]


def check_text(path: str, first: bytes, codec: str | None, encoding: str | None) -> None:
    """Raises UserError for bytes, those that a file begins with, that are no text, or one in another encoding."""
    null = first[:64].find(b"\0")
    if codec is None and null >= 0:
        order = {0: "be", 1: "le"}.get(null)  # of a first letter's two bytes, 0 stands in the higher one
        guess = f", or text in UTF-16 without its mark: say data.read.encoding=utf-16-{order}" if order else ""
        raise UserError(f"{path} is no text{guess}")
    if codec and codec.startswith(("cp125", "iso8859")) and not first.isascii():
        with suppress(UnicodeDecodeError):  # as it should be
            codecs.getincrementaldecoder("utf-8")().decode(first)
            raise UserError(f"{path} is text in UTF-8: leave out data.read.encoding={encoding}")


@contextmanager
def readable(path: str, encoding: str | None) -> Iterator[None]:
    """Turns what is said of a damaged file, or of bytes that are no text of this encoding, into a UserError."""
    try:
        yield
    except UnicodeError as error:
        name = encoding or "UTF-16"
        raise UserError(f"{path} is no text in {name}: {error}: say another data.read.encoding") from None
    except (EOFError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is a damaged {kind_of(path)} file: {error}") from None
    except Exception as error:  # zstandard's own, which is not imported where it is not needed
        if type(error).__name__ != "ZstdError":
            raise
        raise UserError(f"{path} is a damaged zstd file: {error}") from None


def codec_of(encoding: str) -> str:
    try:
        "".encode(encoding)  # base64 is a codec too, and none of text
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
        if not names:
            raise UserError(f"{path} holds no file")
        if len(names) > 1:
            raise UserError(f"{path} holds {len(names)} files, not one: {', '.join(names[:5])}: unpack it")
        try:
            return archive.open(names[0])  # which keeps the file open
        except (RuntimeError, NotImplementedError) as error:  # one with a password, or packed as zipfile cannot
            raise UserError(f"{path}: {error}: unpack it") from None
