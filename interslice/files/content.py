"""What a file holds that has the name of a volume and is none: nothing, a pointer to data elsewhere, or a text."""

from __future__ import annotations

from pathlib import Path

from interslice.files.scan import Refusal

POINTERS = {
    b"version https://git-lfs.github.com/": "Git LFS (git lfs pull)",
    b"/annex/objects/": "git-annex (git annex get)",
}
"""How a pointer begins that a checkout leaves in place of the data, and who fetches them."""
TEXT_HEADERS = (".nrrd", ".nhdr", ".mha", ".mhd")
"""Formats whose files begin with words."""
MARKUP = b"<{"
"""How no header begins that is written in words: HTML, XML and JSON do."""
RAW = (".img", ".img.gz")
"""Voxels without a header, which may begin with anything."""
SHOWN = 24
"""Characters of a text that are shown, and that have to be printable in a text."""


def check_content(path: Path) -> None:
    """Raise Refusal for a file that is empty, or a pointer or another text where a volume is expected."""
    with path.open("rb") as file:
        start = file.read(SHOWN * 2)
    if not start:
        raise Refusal("the file is empty: copy or download it again")
    name = path.name.lower()
    if name.endswith(RAW):
        return
    for sign, fetched_by in POINTERS.items():
        if start.startswith(sign):
            raise Refusal(f"this is a pointer whose data were not fetched by {fetched_by}")
    words = start.lstrip()[:SHOWN].decode("latin-1")
    if words and words.isascii() and all(c.isprintable() or c.isspace() for c in words) and (
        words[0].encode() in MARKUP or not name.endswith(TEXT_HEADERS)
    ):  # fmt: skip
        raise Refusal(f"this is no volume, but text that begins with {words.split(chr(10))[0].strip()!r}")
