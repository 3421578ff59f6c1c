"""HDF5 that holds its own data: no part of it is read from another file.

An HDF5 file may link to objects of other files, store a dataset in other files, and put a dataset together of others'
("External Links", "External Storage" and "Virtual Datasets" in the HDF5 User Guide). A file of k-space that came from
elsewhere could so read any file of this machine into an image.
"""

from __future__ import annotations

import h5py

from interslice.files.scan import Refusal

MOST_OBJECTS = 10_000
"""Groups and datasets of a file: one of k-space has a dozen."""


def check_own_data(file: h5py.File) -> None:
    """Raise Refusal where an object of a file, whatever its name, lies elsewhere; nothing elsewhere is opened."""
    groups, seen, count = [file], set(), 0
    while groups:
        group = groups.pop()
        if (address := h5py.h5o.get_info(group.id).addr) in seen:  # links may go in circles
            continue
        seen.add(address)
        for name in group:
            if (count := count + 1) > MOST_OBJECTS:
                raise Refusal(f"the file holds more than {MOST_OBJECTS} objects: save k-space alone")
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise Refusal(f"{name[:80]} lies in another file, {link.filename[:200]}: copy it into this one")
            if isinstance(link, h5py.SoftLink):
                continue  # to an object of this file, which is looked at where it is
            stored = group[name]
            if isinstance(stored, h5py.Group):
                groups.append(stored)
            elif isinstance(stored, h5py.Dataset) and (stored.external or stored.is_virtual):
                raise Refusal(f"{name[:80]} is read from other files: copy what they hold into this one")
