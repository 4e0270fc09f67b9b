"""Facts about data sets (`data_manifests/*.toml`) as typed records; finds, verifies and fetches their files."""

import gzip
import hashlib
import io
import logging
import os
import time
import tomllib
import zlib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, TypeVar, overload

import pooch
import requests
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, StringConstraints

from pipeline.runtime.errors import DataError
from pipeline.runtime.files import flush, sha256, storage_error
from pipeline.runtime.leases import lease
from pipeline.runtime.paths import shared_data

_log = logging.getLogger(__name__)
GZIP = b"\x1f\x8b"  # how such files begin
TIMEOUT = (10.0, 60.0)  # seconds to connect, and between pieces
_PIECE = 2**16  # bytes; a broken connection loses at most this much
_REPORT_SECONDS = 5.0  # between progress messages of a download

FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$")]


class Record(BaseModel):
    """A part of a manifest: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RemoteFile(Record):
    """One file: its addresses (tried in this order; none if none is known), what its bytes must be, and how we know.

    `size` is in bytes; the checksums are hexadecimal. `sha256` decides; `md5` is only for people to compare. `unpacked`
    is the sha256 of what a `.gz` file holds: an unpacked file, or one packed anew, is as good. `also` are other names
    under which it is passed around.
    """

    name: FileName
    also: tuple[FileName, ...] = ()
    urls: tuple[Url, ...] = ()
    size: PositiveInt
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    unpacked: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    md5: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")] | None = None
    trust: str

    @property
    def names(self) -> tuple[str, ...]:
        """The names it may have on disk, packed and unpacked."""
        names = (self.name, *self.also)
        return names if self.unpacked is None else (*names, *(name.removesuffix(".gz") for name in names))


class Manifest(Record):
    """A data set that consists of files. Data sets with more facts than these subclass it.

    `folders` are other places of its files than a folder of its name, where other programs put them.
    """

    name: FileName
    title: str
    homepage: str
    licence: str
    note: str = ""
    folders: tuple[str, ...] = ()
    files: tuple[RemoteFile, ...] = Field(min_length=1)


R = TypeVar("R", bound=Record)


def names() -> tuple[str, ...]:
    """The data sets that can be fetched, sorted: every manifest with files."""
    entries = (entry.name for entry in resources.files("data_manifests").iterdir())
    stems = sorted(name.removesuffix(".toml") for name in entries if name.endswith(".toml"))
    return tuple(stem for stem in stems if "files" in _content(stem))


@overload
def load(name: str) -> Manifest: ...
@overload
def load(name: str, kind: type[R]) -> R: ...
def load(name: str, kind: type[Record] = Manifest) -> Record:
    """The manifest `data_manifests/<name>.toml` as a record of the given kind.

    Raises:
        DataError: there is no such manifest.
        pydantic.ValidationError: the manifest does not fit its kind, which is a bug of the project.
    """
    return kind.model_validate(_content(name))


def fetch(manifest: str | Manifest, raw: Path) -> dict[str, Path]:
    """Finds or downloads every file of a data set and verifies it; returns file name -> path.

    A file is taken from `places`, or downloaded into `raw/<name>/`. Unpacked files and files packed anew are taken as
    they are, by what they hold.

    Raises:
        DataError: an existing file has the wrong content (it is named, never overwritten), or no address works.
        StorageError: the disk is full or refuses.
    """
    if isinstance(manifest, str):
        manifest = load(manifest)
    folders = places(raw, manifest.name, *manifest.folders)
    return {file.name: find(file, folders) or _get(file, folders) for file in manifest.files}


def places(raw: Path, *names: str) -> list[Path]:
    """Where the files of a data set may lie: the folders of these names in `raw`, then in `$MMSSL_DATA`.

    The first one is where they are downloaded to.
    """
    shared = shared_data()
    bases = [raw, *([shared] if shared else [])]
    return [base / name for base in bases for name in names]


def find(file: RemoteFile, folders: Sequence[Path]) -> Path | None:
    """Finds and verifies a file in one of some folders; None if it is in none of them.

    Raises:
        DataError: the file that is there has the wrong content, and none of the others has the right one.
    """
    wrong = None
    for path in (folder / name for folder in folders for name in file.names):
        if path.exists():
            try:
                verify(file, path)
            except DataError as error:
                wrong = wrong or error
            else:
                return path
    if wrong is not None:
        raise wrong
    return None


def verify(file: RemoteFile, path: Path) -> None:
    """Checks a file on disk against its record: its bytes, or else what it holds, if that is known.

    Raises:
        DataError: it cannot be read, or is another file.
    """
    again = "to get it again" if file.urls else "to learn where to get it"
    hint = f"move {path} away, and run the same command {again}"
    try:
        size = path.stat().st_size
        if size == file.size and sha256(path) == file.sha256:
            return
        if file.unpacked is not None and _content_sha256(path) == file.unpacked:
            _log.info("%s: holds what %s does, though it is not packed in the same way", path, file.name)
            return
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from error
    if size == file.size:
        raise DataError(f"{path}: has the size of {file.name}, but not its content (the sha256 differs)", hint)
    raise DataError(f"{path}: has {size:,} bytes, not the {file.size:,} of {file.name}{_also(file)}", hint)


def _also(file: RemoteFile) -> str:
    return "" if file.unpacked is None else ", and does not hold the same, packed or unpacked"


def _content_sha256(path: Path) -> str | None:
    """The sha256 of what a file holds, unpacked if it is a gzip file; None if that is damaged."""
    with path.open("rb") as file:
        packed = file.read(len(GZIP)) == GZIP
    if not packed:
        return sha256(path)
    digest = hashlib.sha256()
    try:
        with gzip.open(path) as content:
            while block := content.read(2**20):
                digest.update(block)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return None
    return digest.hexdigest()


def read_unpacked(path: Path) -> bytes:
    """The content of a file, unpacked if it is a gzip file, whatever its name.

    Raises:
        DataError: it cannot be read or unpacked.
    """
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(GZIP) else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})", f"move {path} away and get it again") from error


def _content(name: str) -> Mapping[str, object]:
    entry = resources.files("data_manifests") / f"{name}.toml"
    if "/" in name or not entry.is_file():
        raise DataError(f"there is no data set {name!r}", "`mmssl data list` lists them")
    return tomllib.loads(entry.read_text("utf-8"))


def _get(file: RemoteFile, folders: Sequence[Path]) -> Path:
    with lease(folders[0] / file.name, wait=lambda: None):  # several jobs that start at once may want it
        return find(file, folders) or _download(file, folders[0])


def _download(file: RemoteFile, folder: Path) -> Path:
    target = folder / file.name
    part = folder / f".{file.name}.part"
    pooch.get_logger().setLevel("WARNING")  # our own messages say the same
    attempts = []
    for url in file.urls:
        resumed = part.exists()
        for _ in range(1 + resumed):  # if the part held other bytes, it is gone now: once more from the start
            try:
                pooch.retrieve(url, f"sha256:{file.sha256}", file.name, folder, downloader=_Resuming(file, part))
                flush(folder)
                return target
            except requests.RequestException as error:
                reason = reason_of(error)
                break
            except ValueError:
                reason = "it serves other bytes"
            except OSError as error:
                raise storage_error(target, error) from error
        attempts.append(f"{url} ({reason})")
        _log.warning("%s: %s", url, reason)
    tried = f"tried {', '.join(attempts)}" if attempts else "no address of it is known"
    raise DataError(
        f"cannot get {file.name}: {tried}",
        f"download the file yourself and put it into {folder}/, or set MMSSL_DATA to a folder that holds "
        f"{folder.name}/{file.name}; then run the same command again",
    )


class _Resuming:
    """A pooch downloader that resumes a broken download.

    The bytes are collected in `part`, which survives a failure. When complete, it replaces pooch's own temporary file,
    which pooch renames once the checksum matches.
    """

    def __init__(self, file: RemoteFile, part: Path) -> None:
        self._file = file
        self._part = part

    def __call__(self, url: str, output_file: str, _pooch: object) -> None:
        while True:
            before = self._have()
            try:
                self._stream(url, before)
                break
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
                if self._have() <= before:  # no progress
                    raise
                _log.info("%s: connection lost at %s bytes; resuming from there", self._file.name, f"{self._have():,}")
        flush(self._part)
        os.replace(self._part, output_file)

    def _have(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _stream(self, url: str, start: int) -> None:
        if start >= self._file.size:
            self._part.unlink()
            start = 0
        # "identity": a .gz file must arrive as it is, not unpacked on the way
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            response.raise_for_status()
            continues = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            resumed = start > 0 and response.status_code == requests.codes.partial_content and continues
            _log.info("%s: %s from %s", self._file.name, "resumed" if resumed else "download", url)
            with self._part.open("ab" if resumed else "wb") as part:
                self._copy(response, part, start if resumed else 0)

    def _copy(self, response: requests.Response, part: io.BufferedWriter, done: int) -> None:
        size = self._file.size
        last = time.monotonic()
        for piece in response.iter_content(_PIECE):
            done += len(piece)
            if done > size:
                break  # this is not the file, as the checksum will show
            part.write(piece)
            if time.monotonic() - last > _REPORT_SECONDS:
                last = time.monotonic()
                _log.info("%s: %d of %d MB", self._file.name, done // 10**6, size // 10**6)


def reason_of(error: requests.RequestException) -> str:
    """Why a download failed, in a few words."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not accepted"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
        return "no connection, or it broke off"
    return type(error).__name__
