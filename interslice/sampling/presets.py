"""Named settings of the sampler: "best", "fast" and "sharp", for each task a table in its config.

A preset is a default of its ids: an overlay, or the command line, that gives one of them goes before it. A guide
(interslice.physics.guide) knows most of what a preset's steps are for, and fewer of them, from less noise, do better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from interslice.files.values import choice


def chosen_preset(
    name: str | Sequence[str], presets: Mapping[str, Mapping], guide: object = None,
    with_guide: Mapping[str, object] | None = None,
) -> dict:  # fmt: skip
    """The settings of a preset, and its name as "name".

    Args:
        name: one of `presets`. Of a list the first is taken: label servers offer a choice as a list of all names, and
            hand the whole list over where nothing was chosen.
        presets: name -> settings.
        guide: None for no guide.
        with_guide: settings that go before those of the preset where there is a guide.

    Raises:
        UsageError: there is no preset of this name.
    """
    first = name[0] if isinstance(name, (list, tuple)) and name else name
    chosen = {"name": choice("preset", first, tuple(presets)), **presets[first]}
    return chosen if guide is None else {**chosen, **(with_guide or {})}


def unless_given(chosen: Mapping[str, object], others: Mapping[str, Mapping], **given: object) -> dict | None:
    """The settings of `others` for the chosen preset; None where one of its settings was `given` another value.

    Args:
        chosen: of `chosen_preset`.
        others: name of a preset -> settings that go before its own.
        given: the settings as they are after overlays and the command line.
    """
    as_chosen = all(chosen[name] == value for name, value in given.items())
    return dict(others[chosen["name"]]) if as_chosen else None


def by_guide(guide: object, guided: object, otherwise: object) -> object:
    """What belongs to a run with a guide, or without one."""
    return otherwise if guide is None else guided
