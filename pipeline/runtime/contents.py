"""What a file is by its first bytes, for messages about one that is not what its name or its place says."""

from pathlib import Path
from typing import NamedTuple

SEEN = 4096  # bytes that are looked at
_CSV = "export it as 'CSV UTF-8'"
_PICTURE = "convert it to PNG"
_AGAIN = "copy or download it again"


class OtherKind(NamedTuple):
    """What a file is, in words that follow "is", and what mends it, if anything does."""

    what: str
    hint: str | None


_GIT_LFS = OtherKind("a pointer of Git LFS in place of the file", "git lfs pull brings the file itself")
_GIT_ANNEX = OtherKind("a pointer of git-annex in place of the file", "git annex get brings the file itself")
_WEB_PAGE = OtherKind("a web page (HTML), as a server sends in place of a file that it refuses", _AGAIN)
_XML = OtherKind("an XML text, as a server sends in place of a file that it refuses", _AGAIN)
_ZEROS = OtherKind("nothing but zero bytes where it should begin, as a crash or a full disk leaves it", _AGAIN)
_TEXTS = (  # how texts begin that stand in place of another file, without spaces before them, in small letters
    (b"version https://git-lfs.github.com/spec/", _GIT_LFS),
    (b"/annex/objects/", _GIT_ANNEX),
    (b"<!doctype html", _WEB_PAGE),
    (b"<html", _WEB_PAGE),
    (b"<?xml", _XML),
)
_BINARIES = (
    (b"PK\x03\x04", OtherKind("a ZIP archive or an Excel workbook", _CSV)),
    (b"\xd0\xcf\x11\xe0", OtherKind("an old Excel workbook", _CSV)),
    (b"\x1f\x8b", OtherKind("compressed (gzip)", "gunzip it")),
    (b"BZh", OtherKind("compressed (bzip2)", "bunzip2 it")),
    (b"\xfd7zXZ\0", OtherKind("compressed (xz)", "unxz it")),
    (b"\x28\xb5\x2f\xfd", OtherKind("compressed (zstd)", "unzstd it")),
    (b"7z\xbc\xaf\x27\x1c", OtherKind("a 7z archive", "unpack it")),
    (b"Rar!", OtherKind("a RAR archive", "unpack it")),
    (b"\x89HDF", OtherKind("an HDF5 file", None)),
    (b"%PDF", OtherKind("a PDF", None)),
    (b"\x93NUMPY", OtherKind("a NumPy array (.npy)", None)),
    (b"\x89PNG", OtherKind("a PNG picture", None)),
    (b"\xff\xd8\xff", OtherKind("a JPEG picture", None)),
    (b"GIF8", OtherKind("a GIF picture", _PICTURE)),
    (b"\0\0\0\x0cjP  ", OtherKind("a JPEG 2000 picture", _PICTURE)),
    (b"\xff\x4f\xff\x51", OtherKind("a JPEG 2000 picture", _PICTURE)),
    (b"\x76\x2f\x31\x01", OtherKind("an OpenEXR picture", "convert it to TIFF or .npy of floating-point numbers")),
    (b"\0\x05\x16\x07", OtherKind("what macOS keeps beside a file (AppleDouble), not the file", "remove it")),
)
_PICKLED = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
_BRANDS = {b"heic": "a HEIC picture", b"heix": "a HEIC picture", b"mif1": "a HEIF picture", b"avif": "an AVIF picture"}


def other_kind(content: bytes) -> OtherKind | None:
    """What the first bytes of a file tell; None if they tell nothing that is known here."""
    content = content[:SEEN]
    start = content.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for beginning, kind in _TEXTS:
        if start.startswith(beginning):
            return kind
    for beginning, kind in _BINARIES:
        if content.startswith(beginning):
            return kind
    if content[4:8] == b"ftyp" and content[8:12] in _BRANDS:
        return OtherKind(_BRANDS[content[8:12]], _PICTURE)
    if content.startswith(_PICKLED):
        return OtherKind("a Python pickle, which is never unpickled", "save its arrays with numpy.savez")
    return _ZEROS if len(content) > 8 and not content.strip(b"\0") else None


def other_kind_of(path: Path, *expected: bytes) -> OtherKind | None:
    """`other_kind` of a file's first bytes; None too if it cannot be read, or begins as it should.

    Args:
        expected: how a good file begins, though it may be damaged behind that.
    """
    try:
        with path.open("rb") as file:
            content = file.read(SEEN)
    except OSError:
        return None
    return None if expected and content.startswith(expected) else other_kind(content)
