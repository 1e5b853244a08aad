"""Downloads that resume after an interrupt."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path
from typing import Any, cast

import pooch
import requests

from maemem.logs import showing_progress

log = logging.getLogger("maemem.data.sets.download")

_MEGABYTE = 1_000_000
_PIECE_BYTES = 1 << 16  # The most that is lost when a connection breaks off.
_BUSY = (408, 425, 429, 500, 502, 503, 504)  # statuses worth another try


class _ResumingDownload:
    """A downloader for pooch that keeps the part it has, and requests the rest only.

    The part is in `kept`, the server's name of the file's version beside it. If the server names no
    version, or another one, the whole file is requested.
    """

    def __init__(self, kept: Path, attempts: int, patience_s: float, pause_s: float) -> None:
        self.kept = kept
        self.version = kept.with_name(f"{kept.name}.version")
        self.attempts, self.patience_s, self.pause_s = attempts, patience_s, pause_s

    def __call__(self, url: str, output_file: str | Path, _: object = None) -> None:
        """Downloads a file.

        Raises:
          OSError: if the server refuses, or the connection keeps failing; the part is kept.
        """
        for attempt in range(1, self.attempts + 1):
            try:
                self._try(url)
                break
            except requests.exceptions.SSLError as error:
                raise OSError(f"{url}: {error}") from None
            except _PASSING as error:
                failure: Exception = error
            have = self.kept.stat().st_size if self.kept.exists() else 0
            if attempt == self.attempts:
                raise OSError(
                    f"{url} broke off {attempt} times, the last time after {have} bytes: "
                    f"{failure}. The same command goes on from there"
                ) from failure
            log.warning("the connection broke off after %d bytes; trying again", have)
            time.sleep(self.pause_s * attempt)
        shutil.move(self.kept, output_file)
        self.version.unlink(missing_ok=True)

    def _try(self, url: str) -> None:
        """Makes one request, and appends its answer to the part."""
        have, version = 0, ""
        if self.kept.exists() and self.version.exists():
            have, version = self.kept.stat().st_size, self.version.read_text()
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": version}
        with requests.get(
            url, headers=headers, stream=True, timeout=(self.patience_s, self.patience_s)
        ) as answer:
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                self.kept.unlink()
                raise _Busy("the part that was kept does not fit the file; starting anew")
            if answer.status_code in _BUSY:
                raise _Busy(f"the server says {answer.status_code} {answer.reason}")
            if not answer.ok:
                raise OSError(f"{url}: the server says {answer.status_code} {answer.reason}")
            if answer.status_code != requests.codes.partial_content:
                have = 0
                _note_version(answer, self.version)
            self._receive(answer, have)

    def _receive(self, answer: requests.Response, have: int) -> None:
        length = int(answer.headers.get("Content-Length", 0))
        total = (have + length) // _MEGABYTE
        amounts = {"total": total, "missing": total - have // _MEGABYTE, "unit": "megabyte"}
        with (
            self.kept.open("ab" if have else "wb") as file,
            showing_progress(log, "downloaded", **amounts, shown=total > 0) as advance,
        ):
            for piece in answer.iter_content(_PIECE_BYTES):
                file.write(piece)
                before, have = have, have + len(piece)
                if have // _MEGABYTE > before // _MEGABYTE:
                    advance()


class _Busy(Exception):
    """The server is busy; another try may succeed."""


_PASSING = (
    _Busy,
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)


def _note_version(answer: requests.Response, path: Path) -> None:
    """Records the version of a file for the header If-Range."""
    tag = answer.headers.get("ETag", "")
    version = answer.headers.get("Last-Modified", "") if tag.startswith("W/") or not tag else tag
    if version:
        path.write_text(version)
    else:
        path.unlink(missing_ok=True)


def download(
    url: str,
    path: Path,
    checksum: str | None,
    *,
    attempts: int = 5,
    patience_s: float = 60,
    pause_s: float = 2,
) -> None:
    """Downloads a file unless it exists, resuming from a part.

    Args:
      url: its address.
      path: its target; the folder is made.
      checksum: "sha256:…" or "md5:…"; None: not checked.
      attempts: how many, if the connection breaks off.
      patience_s: timeout without data.
      pause_s: before the second attempt; pauses grow.

    Raises:
      OSError: if the server refuses, or the connection fails; the part is kept.
      ValueError: if the file has another checksum; it is deleted.
    """
    pooch.get_logger().setLevel("WARNING")
    kept = path.with_name(f"{path.name}.part")
    resuming = _ResumingDownload(kept, attempts, patience_s, pause_s)
    # pooch declares the type of a processor here.
    downloader = cast(Any, resuming)
    log.info("downloading %s", url)
    try:
        pooch.retrieve(url, checksum, fname=path.name, path=path.parent, downloader=downloader)
    except ValueError as error:
        raise ValueError(f"{url} is not the file that it was: {error}") from None
