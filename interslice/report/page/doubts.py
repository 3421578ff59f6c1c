"""What is doubtful about a result, at the top of its page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def doubt_list(doubts: Sequence[str]) -> str:
    """A list of sentences, or nothing."""
    if not doubts:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in doubts)
    return f'<div class="warning" role="note" aria-label="Doubts"><strong>Doubts</strong><ul>{items}</ul></div>'
