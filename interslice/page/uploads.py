"""Files that come from a browser: their names, how many and how large they may be, and archives of them."""

from __future__ import annotations

import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from interslice.files.limits import CHUNK
from interslice.files.listed import SUFFIX as LIST
from interslice.files.machine import GIGA, free_disk, in_gigabytes
from interslice.files.scan import Refusal

MOST_FILES = 20_000
"""In an upload: more than the images of any series."""
LONGEST, DEEPEST = 120, 16
"""Letters of a name, which is cut at its front, and folders in each other."""
ODD = re.compile(r"[^\w .+,=()@-]")


def safe_name(name: str) -> PurePosixPath:
    """A relative path that stays inside of its folder, of letters, digits and few signs.

    Raises:
        Refusal: the name leads out of the folder.
    """
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or not parts[0] or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise Refusal(f"{name!r} leads out of the folder of the upload: name files by their own names")
    clean = [ODD.sub("_", part)[-LONGEST:] for part in parts if part not in ("", ".")]
    clean = [("_" + part[1:] if part.startswith((".", "-")) else part).rstrip(" .") or "_" for part in clean]
    if not clean or len(clean) > DEEPEST:
        raise Refusal(f"{name!r} is no name of a file in at most {DEEPEST} folders")
    return PurePosixPath(*clean)


def check_sizes(names: Sequence[str], sizes: Sequence[int], most: float, folder: Path) -> list[PurePosixPath]:
    """The names that files are kept by in `folder`.

    Args:
        sizes: in bytes.
        most: bytes of all together.

    Raises:
        Refusal: too many files, too large, more than the disk has room for, or two of one name.
    """
    if len(names) > MOST_FILES:
        raise Refusal(f"{len(names)} files, and at most {MOST_FILES} are taken: choose the folder of one series")
    if any(not isinstance(size, int) or isinstance(size, bool) or size < 0 for size in sizes):
        raise Refusal(f"sizes are whole numbers from 0, got {[*sizes][:3]}")
    if (size := sum(sizes)) > most:
        raise Refusal(
            f"the files take {in_gigabytes(size)}, and at most {in_gigabytes(most)} are taken: if it is no mistake, "
            f"start the page with --max-gigabytes {-(-size // int(GIGA))}"
        )
    if (free := free_disk(folder)) is not None and size > free:
        raise Refusal(f"the files take {in_gigabytes(size)}, and {in_gigabytes(free)} of disk are free at {folder}")
    kept = [safe_name(name) for name in names]
    once: set[str] = set()
    for path in kept:
        if (name := str(path).casefold()) in once:
            raise Refusal(f"two files are called {path}: rename one")
        once.add(name)
    if inside := next((p for p in kept for q in p.parents if str(q).casefold() in once), None):
        raise Refusal(f"{inside.parent} is a file and a folder: rename one")
    return kept


def pieces(file, size: int) -> Iterator[bytes]:
    """The next `size` bytes of a stream.

    Raises:
        Refusal: it ends before.
    """
    while size:
        content = file.read(min(size, CHUNK))
        if not content:
            raise Refusal("the upload broke off: send the files again")
        size -= len(content)
        yield content


def unpack(archive: Path, most: float) -> None:
    """Put the files of a zip archive in its place, in a folder of its name without the suffix.

    Raises:
        Refusal: it is none, is damaged or encrypted, or holds what an upload may not.
    """
    folder = archive.with_suffix("")
    try:
        with zipfile.ZipFile(archive) as held:
            members = [m for m in held.infolist() if not m.is_dir() and not _hidden(m.filename)]
            for member in members:
                if member.flag_bits & 1:
                    raise Refusal(f"{archive.name} is encrypted: unpack it, and choose its folder")
                if stat.S_ISLNK(member.external_attr >> 16):
                    raise Refusal(f"{archive.name} holds a link, {member.filename!r}: pack the file itself")
            sizes = [m.file_size for m in members]
            names = check_sizes([m.filename for m in members], sizes, most, archive.parent)
            for member, name in zip(members, names):
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with held.open(member) as source, path.open("xb") as file:
                    for piece in pieces(source, member.file_size):  # and no byte more than it states
                        file.write(piece)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise Refusal(f"{archive.name} cannot be unpacked, is it damaged? ({error})") from None
    archive.unlink()


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) and part != ".." for part in name.split("/"))


def source_of(folder: Path) -> Path:
    """What is reconstructed of the files of an upload: the one that it is, or their folder.

    Raises:
        Refusal: there is none, or a list of files that lie elsewhere.
    """
    inside = sorted(folder.iterdir())
    if not inside:
        raise Refusal("the upload holds no file")
    if any(path.name.lower().endswith(LIST) for path in inside) and len(inside) == 1:
        raise Refusal(f"{inside[0].name} is a list of files that lie elsewhere: choose the files themselves")
    return inside[0] if len(inside) == 1 else folder
