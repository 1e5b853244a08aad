"""Downloaded files: checksums and unpacking."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import shutil
import time
import zipfile
from pathlib import Path, PurePosixPath


def digest(path: Path, kind: str = "sha256") -> str:
    """The checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def check_file(path: Path, checksum: str | None) -> None:
    """Compares a file with its checksum, "sha256:…" or "md5:…"; None is not compared.

    Raises:
      ValueError: if they differ.
    """
    if checksum is None:
        return
    kind, expected = checksum.split(":")
    found = digest(path, kind)
    if found != expected:
        raise ValueError(
            f"{path} has the {kind} {found}, expected {expected}: it is incomplete, or another "
            f"version; delete it, or get it again. If its home has packed it anew, unpack it, and "
            f"name the folder with --from: each file in it is then taken as it is"
        )


def matches(path: str, pattern: str) -> bool:
    """Whether the whole path of a file in an archive matches a pattern of `fnmatch`.

    Files of macOS (`._NAME`) never match.
    """
    name = PurePosixPath(path).name
    return fnmatch.fnmatchcase(path, pattern) and name != ".." and not name.startswith("._")


def unpack(archive: Path, pattern: str, folder: Path) -> None:
    """Unpacks the files of a zip that match a pattern into one folder.

    Only the last part of their paths is used, so none leads out of the folder; links become plain
    files. Existing files are kept. Dates are those in the archive, so unpacking again gives equal
    files.

    Args:
      archive: a zip.
      pattern: as in `matches`.
      folder: made if need be.

    Raises:
      ValueError: if it is no zip, or damaged; if no file matches, or two have the same name.
      OSError: if the disk is too small.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [
                member
                for member in opened.infolist()
                if matches(member.filename, pattern) and not member.is_dir()
            ]
            names = {PurePosixPath(member.filename).name for member in members}
            if not members or len(names) < len(members):
                raise ValueError(
                    f"{archive} holds {len(members)} files {pattern} with {len(names)} different "
                    f"names; expected at least one, and each name once"
                )
            folder.mkdir(parents=True, exist_ok=True)
            needed = sum(member.file_size for member in members)
            if needed > shutil.disk_usage(folder).free:
                raise OSError(f"{pattern} of {archive} takes {needed} bytes, more than are free")
            for member in members:
                _unpack_one(opened, member, folder / PurePosixPath(member.filename).name)
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{archive} is not a whole zip archive: {error}; delete it") from None


def _unpack_one(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    if target.exists() and target.stat().st_size == member.file_size:
        return
    draft = target.with_name(f"{target.name}.draft")
    with opened.open(member) as source, draft.open("wb") as file:
        shutil.copyfileobj(source, file)
    date = time.mktime((*member.date_time, 0, 0, 0))
    os.utime(draft, (date, date))
    draft.replace(target)
