"""Who may speak with the page: browsers on this machine that were given its address, and pages of its own.

token    a secret in every address, so that nobody else on the machine, and no other page, knows one
Host     this machine by its number or as localhost: another name that leads here (DNS rebinding) is refused
Origin   where a browser states it, that of the page itself: other pages cannot send anything here
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

ADDRESS = "127.0.0.1"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; frame-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Of the page: it asks this server alone."""
APART = "sandbox allow-scripts; frame-ancestors 'self'"
"""Of a report, besides its own policy: it has no part in the page that shows it."""
HEADERS = {
    "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
}  # fmt: skip
"""Of every answer: nothing of it is kept by the browser, or told to another server."""


class Guard:
    """The secrets of a page, and whether a request knows them.

    Attributes:
        token: the first part of every path.
        once: opens the page once: other users of the machine see the words that a browser is started with.
    """

    def __init__(self, port: int) -> None:
        self.hosts = {f"{name}:{port}" for name in (ADDRESS, "localhost")}
        self.token, self.once = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self.url = f"http://{ADDRESS}:{port}/{self.token}/"
        self.url_once = f"http://{ADDRESS}:{port}/{self.once}"

    def refuses(self, path: str, headers: Mapping[str, str]) -> str:
        """Why a request is refused; empty where it is not."""
        host, origin = headers.get("Host", ""), headers.get("Origin")
        if host not in self.hosts:
            return f"this page answers as {ADDRESS} alone"
        if origin is not None and origin != f"http://{host}":
            return "requests from other pages are refused"
        first = path.lstrip("/").split("/")[0]
        if not secrets.compare_digest(first.encode(), self.token.encode()):
            return "the address is not whole: open the one that `interslice page` has printed"
        return ""

    def opens(self, path: str, headers: Mapping[str, str]) -> bool:
        """Whether this is the one request that leads to the page."""
        opened = headers.get("Host", "") in self.hosts and secrets.compare_digest(path[1:].encode(), self.once.encode())
        if opened:
            self.once = secrets.token_urlsafe(24)
        return opened
