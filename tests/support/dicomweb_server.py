"""A small archive that speaks DICOMweb (PS3.18) on this machine, and misbehaves on demand.

It is written from the standard alone, so that what the program sends and reads is not judged by its own library.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections import defaultdict, deque
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from urllib.parse import parse_qsl, urlsplit

import pydicom

ROOT = "/dicom-web"
SERIES_TAGS = ("StudyInstanceUID", "SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription", "StudyDate",
               "PatientID")  # fmt: skip
REFUSED = 0xA700


class Store:
    """What the archive holds, and how it is to answer next.

    Attributes:
        images: SOPInstanceUID -> bytes of a file.
        faults: kind of request -> what goes wrong with the next ones: a status, or a word that the handler knows.
        log: (kind, headers, query) of every request.
        page: most answers of a search.
        user: "name:password" that must be given, if any; token: the same for a bearer.
    """

    def __init__(self):
        self.images: dict[str, bytes] = {}
        self.faults: dict[str, deque] = defaultdict(deque)
        self.log: list[tuple[str, dict, dict]] = []
        self.page, self.user, self.token = 1000, None, None
        self.silent: set[str] = set()  # attributes that it keeps to itself
        self.url = ""

    def add(self, folder):
        for path in folder.iterdir():
            self.put(path.read_bytes())

    def put(self, content):
        self.images[str(pydicom.dcmread(BytesIO(content), stop_before_pixels=True).SOPInstanceUID)] = content

    def headers(self):
        return [pydicom.dcmread(BytesIO(content), stop_before_pixels=True) for content in self.images.values()]

    def asked(self, kind):
        return sum(1 for name, _, _ in self.log if name == kind)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: Store

    def log_message(self, *_):
        pass

    def do_GET(self):
        address = urlsplit(self.path)
        query = dict(parse_qsl(address.query))
        path = address.path.removeprefix(ROOT)
        patterns = {
            "series": "(?:/studies/([^/]+))?/series",
            "instances": "/studies/([^/]+)/series/([^/]+)/instances",
            "retrieve": "/studies/([^/]+)/series/([^/]+)",
        }
        for kind, pattern in patterns.items():
            if address.path.startswith(ROOT) and (match := re.fullmatch(pattern, path)):
                return self.answer(
                    kind, query, lambda kind=kind, match=match: getattr(self, kind)(query, *match.groups())
                )
        return self.answer("unknown", query, lambda: self.reply(404))

    def do_POST(self):
        self.body = self.read_body()
        self.answer("store", {}, self.take)

    def do_DELETE(self):
        self.answer("delete", {}, lambda: self.reply(405))

    def answer(self, kind, query, work):
        self.store.log.append((kind, dict(self.headers), query))
        given = self.headers.get("Authorization", "")
        basic = self.store.user and f"Basic {base64.b64encode(self.store.user.encode()).decode()}"
        bearer = self.store.token and f"Bearer {self.store.token}"
        if (basic or bearer) and given not in (basic, bearer):
            return self.reply(401)
        self.fault = self.store.faults[kind].popleft() if self.store.faults[kind] else None
        if isinstance(self.fault, int):
            return self.reply(self.fault, headers={"Retry-After": "7"} if self.fault == 429 else {})
        if self.fault == "hang up":
            self.close_connection = True
            return None
        return work()

    def reply(self, status, content=b"", kind="text/plain", headers=None):
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.fault == "cut" if hasattr(self, "fault") else False:
            content, self.close_connection = content[: len(content) // 2], True
        self.wfile.write(content)

    def found(self, headers, tags, query):
        """Answer a search: the headers whose attributes match, in pages."""
        asked = {k: v for k, v in query.items() if k in SERIES_TAGS}
        fits = [h for h in headers if all(str(h.get(k, "")) == v for k, v in asked.items())]
        start = 0 if self.fault == "no pages" else int(query.get("offset", 0))
        items = []
        for header in fits[start : start + self.store.page]:
            item = pydicom.Dataset()
            for tag in (t for t in tags if t in header and t not in self.store.silent):
                item[tag] = header[tag]
            if "NumberOfSeriesRelatedInstances" in header:
                item.NumberOfSeriesRelatedInstances = header.NumberOfSeriesRelatedInstances
            items.append(item.to_json_dict())
        self.reply(200 if items else 204, json.dumps(items).encode() if items else b"", "application/dicom+json")

    def series(self, query, study=None):
        groups = defaultdict(list)
        for header in self.store.headers():
            if study in (None, header.StudyInstanceUID):
                groups[header.SeriesInstanceUID].append(header)
        for headers in groups.values():
            headers[0].NumberOfSeriesRelatedInstances = len(headers) + (self.fault == "promise one more")
        self.found([headers[0] for headers in groups.values()], SERIES_TAGS, query)

    def of(self, study, series):
        return [h for h in self.store.headers() if (h.StudyInstanceUID, h.SeriesInstanceUID) == (study, series)]

    def instances(self, query, study, series):
        self.found(self.of(study, series), ("SOPInstanceUID", "SOPClassUID"), query)

    def retrieve(self, query, study, series):
        images = [self.store.images[h.SOPInstanceUID] for h in self.of(study, series)]
        if not images:
            return self.reply(404)
        if self.fault == "one less":
            images = images[:-1]
        if self.fault == "short pixels":
            images[-1] = images[-1][:-40]
        if self.fault == "another's":
            images.append(next(c for u, c in self.store.images.items() if c not in images))
        if callable(self.fault):
            self.fault()
        parts = b"".join(b"--b0\r\nContent-Type: application/dicom\r\n\r\n" + image + b"\r\n" for image in images)
        self.reply(200, parts + b"--b0--", 'multipart/related; type="application/dicom"; boundary=b0')

    def read_body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def take(self):
        boundary = re.search('boundary="?([^";]+)', self.headers["Content-Type"]).group(1).encode()
        assert 'type="application/dicom"' in self.headers["Content-Type"]
        answer, taken, failed = pydicom.Dataset(), [], []
        for k, part in enumerate(self.body.split(b"--" + boundary)[1:-1]):
            content = part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
            header = pydicom.dcmread(BytesIO(content))
            item = pydicom.Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
            if self.fault in ("refuse", "refuse some") and (self.fault == "refuse" or k % 2):
                item.FailureReason = REFUSED
                failed.append(item)
            elif self.fault != "forget":
                self.store.put(content)
                taken.append(item)
        answer.ReferencedSOPSequence, answer.FailedSOPSequence = taken, failed
        status = 200 if not failed else 202 if taken else 409
        self.reply(status, json.dumps(answer.to_json_dict()).encode(), "application/dicom+json")


@contextmanager
def archive(context=None):
    """A running archive; with an ssl context over https."""
    store = Store()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OfStore", (Handler,), {"store": store}))
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    store.url = f"http{'s' if context else ''}://127.0.0.1:{server.server_port}{ROOT}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
