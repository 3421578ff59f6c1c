"""XML that came with data: parsed without what it declares of its own.

An entity stands for a text that may hold others, so that few lines can stand for gigabytes ("billion laughs"), or for a
file elsewhere. Python's parser opens no other file, and expat stops the largest expansions; no geometry or header needs
any, so that none is taken.
"""

from __future__ import annotations

from contextlib import suppress
from xml.etree import ElementTree
from xml.parsers import expat

from interslice.files.scan import Refusal


def parse_xml(text: str | bytes) -> ElementTree.Element:
    """The root of an XML text.

    Raises:
        Refusal: it declares an entity.
        ElementTree.ParseError: not XML.
    """
    look = expat.ParserCreate()
    look.EntityDeclHandler = _refuse
    with suppress(expat.ExpatError):  # which the parser below says in its words
        look.Parse(text, True)
    return ElementTree.fromstring(text)


def _refuse(name: str, *_: object) -> None:
    raise Refusal(f"it declares an XML entity, {name!r:.40}, and none is taken: write out what it stands for")
