"""An archive that speaks DICOMweb: who may ask it, what is asked again, and what went wrong in words.

dicomweb-client makes the requests (QIDO-RS, WADO-RS, STOW-RS; PS3.18) and reads the answers. Its own repetitions are
off: they say nothing, and send nothing of a body that was sent before. Nothing here deletes.
"""

from __future__ import annotations

import ipaddress
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from interslice.usage import UsageError

if TYPE_CHECKING:
    import requests
    from dicomweb_client.web import DICOMwebClient

USER, PASSWORD, TOKEN = (f"INTERSLICE_PACS_{name}" for name in ("USER", "PASSWORD", "TOKEN"))
"""Variables of the environment: a command line is seen by all users of a machine, and kept by shells."""
CONNECT = 10
"""Seconds that a connection may take."""
BUSY = {408: "took too long", 429: "asks for fewer requests", 502: "is not reached by its gateway",
        503: "is busy or down", 504: "did not answer its gateway"}  # fmt: skip
"""Answers after which the same request may succeed."""
LONGEST_WAIT = 60
"""Seconds between two tries, whatever the archive asks for."""

T = TypeVar("T")


class ArchiveError(RuntimeError):
    """The archive cannot be reached, refuses, or does not hold what is asked for.

    Attributes:
        answer: of the archive, if it gave one.
    """

    def __init__(self, message: str, answer: requests.Response | None = None) -> None:
        super().__init__(message)
        self.answer = answer


class Archive:
    """One archive.

    Args:
        url: where its DICOMweb service begins, such as https://pacs.example/dicom-web.
        ca: file of certificates to trust in place of the usual ones, such as those of a hospital's own authority.
        cert: file with the client's certificate and its key, both PEM, for archives that ask for one.
        allow_http: ask another machine without encryption, too.
        timeout: seconds without a byte of an answer.
        tries: of each request.
        environ: where user and password, or a token, are.
        say: what happens between tries.
        wait: sleeps so many seconds.

    Raises:
        UsageError: one of these makes no sense.
    """

    def __init__(self, url: str, *, ca: str | None = None, cert: str | None = None, allow_http: bool = False,
                 timeout: float = 60.0, tries: int = 4, environ: Mapping[str, str] = os.environ,
                 say: Callable[[str], object] = lambda text: print(text, file=sys.stderr, flush=True),
                 wait: Callable[[float], object] = time.sleep) -> None:  # fmt: skip
        if not timeout > 0:
            raise UsageError(f"timeout must be above 0 seconds, got {timeout:g}")
        if tries < 1:
            raise UsageError(f"tries must be a whole number from 1, got {tries}")
        for name, path in (("ca", ca), ("cert", cert)):
            if path is not None and not Path(path).is_file():
                raise UsageError(f"{name} must be a file, and {path} is none")
        self.url = checked(url, allow_http)
        self.host = urlsplit(self.url).netloc
        self.tries, self.pause, self._say = tries, wait, say
        self.client = client(self.url, ca, cert, timeout, environ)

    def ask(self, what: str, request: Callable[[DICOMwebClient], T]) -> T:
        """What `request` returns, asked again where that can help; `what` is it in words, without a patient's data.

        Raises:
            ArchiveError: it fails for good.
        """
        import requests

        for attempt in range(1, self.tries + 1):
            try:
                return request(self.client)
            except requests.RequestException as error:
                said, pause = judged(error, self.host)
                if pause is None or attempt == self.tries:
                    tried = f" (asked {attempt} times)" if attempt > 1 else ""
                    raise ArchiveError(f"{what}: {said}{tried}", error.response) from None
                pause = min(max(pause, 2.0 ** (attempt - 1)), LONGEST_WAIT)
                self._say(f"{what}: {said}; try {attempt + 1} of {self.tries} in {pause:g} s")
                self.pause(pause)
        raise AssertionError("tries is at least 1")

    def search(self, what: str, uid: str, request: Callable[..., list[dict]]) -> list[dict]:
        """All answers to a search, page by page, as far as an archive gives them in pages.

        Args:
            what: as in `ask`.
            uid: tag of the UID by which answers are told apart: an archive may always begin anew.
            request: (client, offset=...) -> a page.
        """
        found: dict[str, dict] = {}
        while True:
            offset = {"offset": len(found)} if found else {}
            page = self.ask(what, lambda client: request(client, **offset))  # noqa: B023 - called at once
            news = {name: item for item in page if (name := first(item, uid)) not in found}
            if not news:
                return list(found.values())
            found.update(news)

    def instances(self, study: str, series: str) -> set[str]:
        """SOPInstanceUIDs of all images of a series; none if the archive does not hold it."""
        what = f"the list of images of series {series}"
        try:
            items = self.search(what, "00080018", lambda c, **page: c.search_for_instances(study, series, **page))
        except ArchiveError as error:
            if error.answer is None or error.answer.status_code != 404:
                raise
            items = []  # as some archives answer that nothing was found
        return {first(item, "00080018") for item in items}


def first(item: Mapping, tag: str) -> str:
    """The first value of an attribute in DICOM's JSON as text; of a name its letters; empty if there is none."""
    values = item.get(tag, {}).get("Value") or [""]
    value = values[0]
    if isinstance(value, Mapping):
        value = value.get("Alphabetic", "")
    return "" if value is None else str(value).strip("\0 ")


def checked(url: str, allow_http: bool) -> str:
    """An address without what must not be in it; UsageError says what that is."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UsageError(f"url must be like https://pacs.example/dicom-web, got {without_secrets(url)!r}")
    if parts.username or parts.password:
        raise UsageError(f"url holds a user or password, which others can read: set {USER} and {PASSWORD} instead")
    if parts.scheme == "http" and not (allow_http or is_here(parts.hostname)):
        raise UsageError(
            f"url {url!r} is not encrypted, and of another machine: patients' data and passwords could be read on the "
            "way. Use https, or --allow_http yes in a network that you trust"
        )
    return url.rstrip("/")


def without_secrets(url: str) -> str:
    """An address as it may be shown."""
    before, at, after = url.rpartition("@")
    return f"{before.split('://')[0]}://...@{after}" if at else url


def is_here(host: str) -> bool:
    """Whether a name is that of this machine, whatever a resolver says."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def client(url: str, ca: str | None, cert: str | None, timeout: float, environ: Mapping[str, str]) -> DICOMwebClient:
    """The library's client, with the certificates and the credentials that are to be used, and no others."""
    try:
        import requests
        from dicomweb_client.web import DICOMwebClient
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{error.name} is missing, which asks archives: pip install dicomweb-client==0.61.2 (the extra [pacs])"
        ) from None
    user, password, token = (environ.get(name, "") for name in (USER, PASSWORD, TOKEN))
    if token and (user or password):
        raise UsageError(f"{TOKEN} and {USER} or {PASSWORD} are set: one of the two ways to say who asks")
    if bool(user) != bool(password):
        raise UsageError(f"only one of {USER} and {PASSWORD} is set")

    def authorise(request: requests.PreparedRequest) -> requests.PreparedRequest:
        if token:
            request.headers["Authorization"] = f"Bearer {token}"
        return request  # and never what ~/.netrc says

    class Session(requests.Session):
        def merge_environment_settings(self, url, proxies, stream, verify, cert):
            """Else REQUESTS_CA_BUNDLE, where it is set, would go before `ca`."""
            return super().merge_environment_settings(url, proxies, stream, verify or self.verify, cert)

    session = Session()
    session.auth = (user, password) if user else authorise
    session.verify, session.cert = ca or True, cert
    made = DICOMwebClient(url, session, permissive_uid=True, timeout=(CONNECT, timeout))
    made.host = urlsplit(url).netloc  # with the port, as the header that it goes into has it
    made.set_http_retry_params(retry=False)
    return made


def judged(error: Exception, host: str) -> tuple[str, float | None]:
    """What went wrong in words, and how many seconds to wait at least before the next try; None: it would not help."""
    import requests

    response = getattr(error, "response", None)
    if response is not None:
        status = response.status_code
        if status in BUSY:
            asked = response.headers.get("Retry-After", "")
            return f"{host} {BUSY[status]} (status {status})", float(asked) if asked.isdigit() else 0.0
        return f"{host} {refused(response)} (status {status})", None
    if isinstance(error, requests.exceptions.SSLError):
        return (
            f"{host} could not be trusted ({innermost(error)}): name the certificates of its authority with --ca",
            None,
        )
    if isinstance(error, requests.Timeout):
        return f"{host} did not answer in time", 0.0
    if isinstance(error, requests.exceptions.JSONDecodeError):
        return f"{host} answered with something else than DICOM's JSON: is this where DICOMweb begins?", None
    if isinstance(error, (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError)):
        return f"{host} ended in the midst of its answer", 0.0
    if isinstance(error, requests.ConnectionError):
        return f"{host} cannot be reached ({innermost(error)})", 0.0
    return f"{host}: {error}", None


def refused(response) -> str:
    """What a status means that no repetition would change."""
    status = response.status_code
    if status in (401, 403):
        who = "whom it was told" if "Authorization" in response.request.headers else "nobody in particular"
        return f"does not allow this to {who}: set {USER} and {PASSWORD}, or {TOKEN}"
    if status == 404:
        return "has no such thing: is this where DICOMweb begins, and does it hold the series?"
    return f"refuses: {response.reason}"


def innermost(error: BaseException) -> str:
    """The last words in a chain of exceptions, in which the library repeats addresses and queries."""
    while inner := next(
        (e for e in (getattr(error, "reason", None), *error.args) if isinstance(e, BaseException)), None
    ):
        error = inner
    said = str(error)
    return said.rpartition(": ")[2] if ">: " in said or "HTTPConnection" in said else said
