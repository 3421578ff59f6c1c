"""Named settings of the sampler: "best", "fast" and "sharp", for each task a table in its config.

A preset is a default of its ids: an overlay, or the command line, that gives one of them goes before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bundle.files.values import choice


def chosen_preset(name: str | Sequence[str], presets: Mapping[str, Mapping]) -> dict:
    """The settings of a preset, and its name as "name".

    Args:
        name: one of `presets`. Of a list the first is taken: label servers offer a choice as a list of all names, and
            hand the whole list over where nothing was chosen.
        presets: name -> settings.

    Raises:
        UsageError: there is no preset of this name.
    """
    first = name[0] if isinstance(name, (list, tuple)) and name else name
    return {"name": choice("preset", first, tuple(presets)), **presets[first]}
