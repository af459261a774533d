"""Zip archives as PyTorch writes them: members stored one by one, never packed."""

from __future__ import annotations

import io
import zipfile
from typing import IO

from shuffledeploy.model.pickled_tuples import check_tuples

MOST_MEMBERS = 20_000

_ENCRYPTED = 0x1


def check_stored(archive: zipfile.ZipFile, size: int) -> None:
    """Check that reading the members takes no more memory than the archive's own size.

    Parameters
    ----------
    archive : zipfile.ZipFile
        Open to read; only its directory is looked at.
    size : int
        Of the whole archive, in bytes.

    Raises
    ------
    ValueError
        A member is compressed or encrypted, is there twice, has a path that leads elsewhere, the
        members are too many or claim more bytes than the archive has, or other bytes come first.
    """
    members = archive.infolist()
    if len(members) > MOST_MEMBERS:
        raise ValueError(f"it has {len(members)} members, more than {MOST_MEMBERS}")
    if min((member.header_offset for member in members), default=0) > 0:
        # An archive within an archive, whose own end is missing, is found in its place.
        raise ValueError("it is damaged, cut short, or has something before its first member")
    seen = set()
    for member in members:
        name = member.filename
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise ValueError(f"its member {name[:80]!r} is compressed, which PyTorch never does")
        if member.flag_bits & _ENCRYPTED:
            raise ValueError(f"its member {name[:80]!r} is encrypted")
        if "\\" in name or name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"its member {name[:80]!r} has a path that leads out of the archive")
        if name in seen:
            raise ValueError(f"its member {name[:80]!r} is there twice")
        seen.add(name)
    if sum(member.file_size for member in members) > size:
        raise ValueError("its members claim more bytes than the file has")


def check_torch_saved(file: IO[bytes], size: int) -> None:
    """Check an archive that `torch.save` wrote: its members, and the pickles among them.

    Raises
    ------
    ValueError
        See :func:`check_stored` and `model.pickled_tuples.check_tuples`.
    zipfile.BadZipFile
        It is no archive, or damaged.
    """
    with zipfile.ZipFile(file) as archive:
        check_stored(archive, size)
        for name in archive.namelist():
            if name.endswith(".pkl"):
                check_tuples(io.BytesIO(archive.read(name)))
