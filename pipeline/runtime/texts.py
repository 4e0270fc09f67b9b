"""Text files as people have them: with a byte order mark or without, of any system's line ends, UTF-8 or UTF-16."""

import codecs
from pathlib import Path

from pipeline.runtime.contents import other_kind
from pipeline.runtime.errors import DataError

_MARKS = (  # of UTF-32 first: its mark begins as that of UTF-16 does
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SEEN = 4096  # bytes that tell UTF-16 without a mark


def read_text(path: Path) -> str:
    r"""The content of a text file, with `\n` at the ends of its lines.

    Raises:
        OSError: it is not there, or cannot be read.
        DataError: it is not text, or text in an encoding that nothing in it tells; the message says what it looks like.
    """
    return decoded(path.read_bytes(), path).replace("\r\n", "\n").replace("\r", "\n")


def decoded(content: bytes, path: Path) -> str:
    """The text in the bytes of a file, its line ends as they are.

    Raises:
        DataError: as for `read_text`.
    """
    other = other_kind(content)
    if other is not None:
        raise DataError(f"{path}: is {other.what}, not a text file", other.hint)
    mark, encoding = next(((m, e) for m, e in _MARKS if content.startswith(m)), (b"", _without_mark(content)))
    body = content[len(mark) :]
    try:
        text = body.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise DataError(f"{path}: begins as {encoding.upper()} text, but is cut short or damaged") from None
        line, byte = 1 + body.count(b"\n", 0, error.start), body[error.start : error.start + 1]
        character = byte.decode("cp1252", "replace")
        raise DataError(
            f"{path}: is not UTF-8 text: the byte 0x{byte.hex().upper()} in line {line}, which is {character!r} in "
            "Windows-1252 (Latin-1)",
            f"save it as UTF-8: iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf-8-{path.name}",
        ) from None
    if "\0" in text:
        raise DataError(f"{path}: is not a text file: it holds NUL bytes")
    return text


def _without_mark(content: bytes) -> str:
    """The encoding of bytes without a mark: in UTF-16 every second byte of plain letters is 0."""
    even, odd = content[:_SEEN:2], content[1:_SEEN:2]
    if len(content) % 2 == 0 and len(odd) > 1:
        if odd.count(0) > 0.7 * len(odd) and not even.count(0):
            return "utf-16-le"
        if even.count(0) > 0.7 * len(even) and not odd.count(0):
            return "utf-16-be"
    return "utf-8"
