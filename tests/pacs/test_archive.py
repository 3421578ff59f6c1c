"""Who asks, what is asked again, and what is said of an archive that refuses."""

import shutil
import ssl
import subprocess
import sys

import certifi
import pytest

from interslice.pacs.archive import Archive, ArchiveError
from interslice.pacs.fetch import search
from interslice.usage import UsageError
from tests.support.dicomweb_server import archive

USER = {"INTERSLICE_PACS_USER": "reader", "INTERSLICE_PACS_PASSWORD": "geheim"}
TOKEN = {"INTERSLICE_PACS_TOKEN": "abc"}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://pacs.example/x", "url must be like https://"),
        ("pacs.example", "url must be like https://"),
        ("https://pacs.example/dicom-web?x=1", "url must be like https://"),
        ("https://reader:geheim@pacs.example/dicom-web", "holds a user or password"),
        ("http://pacs.example/dicom-web", "is not encrypted, and of another machine"),
        ("http://127.0.0.1.example/dicom-web", "is not encrypted, and of another machine"),
    ],
)
def test_addresses_that_are_none_or_tell_secrets_are_refused(url, said):
    with pytest.raises(UsageError, match=said) as refused:
        Archive(url, environ={})
    assert "geheim" not in str(refused.value)


def test_other_machines_are_asked_without_encryption_only_where_that_is_allowed():
    assert Archive("http://pacs.example/dicom-web/", allow_http=True, environ={}).url == "http://pacs.example/dicom-web"
    assert Archive("http://localhost:8042/dicom-web", environ={}).host == "localhost:8042"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"timeout": 0.0}, "timeout must be above 0"),
        ({"tries": 0}, "tries must be a whole number from 1"),
        ({"ca": "/nowhere.pem"}, "ca must be a file"),
        ({"environ": USER | TOKEN}, "one of the two ways"),
        ({"environ": {"INTERSLICE_PACS_USER": "reader"}}, "only one of"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, said):
    with pytest.raises(UsageError, match=said):
        Archive("https://pacs.example", **{"environ": {}} | options)


@pytest.mark.parametrize("name", ["requests", "dicomweb_client.web"])
def test_what_is_missing_is_told_with_the_line_that_installs_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        UsageError, match=f"{name} is missing, .*: pip install dicomweb-client==0.61.2 \\(the extra \\[pacs\\]\\)"
    ):
        Archive("https://pacs.example", environ={})


@pytest.mark.parametrize("environ", [USER, TOKEN], ids=["user", "token"])
def test_who_asks_is_told_by_the_environment(environ, server, scan, ask):
    server.add(scan.folder)
    server.user, server.token = "reader:geheim", "abc"
    assert [s.series for s in search(ask(environ=environ), study=scan.study)] == [scan.series]
    with pytest.raises(ArchiveError, match=r"does not allow this to nobody in particular: set INTERSLICE_PACS_USER"):
        search(ask(), study=scan.study)
    asked = server.asked("series")
    with pytest.raises(ArchiveError, match="does not allow this to whom it was told") as refused:
        search(ask(environ=environ | {k: f"{v}x" for k, v in environ.items() if "USER" not in k}), study=scan.study)
    assert server.asked("series") == asked + 1  # and an account is not locked by tries
    assert "geheim" not in str(refused.value) and scan.study not in str(refused.value)


def test_passwords_of_other_programs_are_not_sent(server, scan, ask, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password other")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    search(ask(), study=scan.study)
    assert not any("Authorization" in headers for _, headers, _ in server.log)


def test_a_busy_archive_is_asked_again_and_that_is_said(server, scan, ask):
    server.add(scan.folder)
    server.faults["series"].extend([503, "hang up", 429])
    asking = ask(tries=4)
    assert len(search(asking, study=scan.study)) == 1
    assert asking.pauses == [1, 2, 7]  # the last as the archive asks
    assert "is busy or down (status 503); try 2 of 4 in 1 s" in asking.said[0]
    assert "cannot be reached" in asking.said[1] and "asks for fewer requests" in asking.said[2]


def test_tries_come_to_an_end(server, ask):
    server.faults["series"].extend([503] * 9)
    with pytest.raises(ArchiveError, match=r"is busy or down \(status 503\) \(asked 3 times\)"):
        search(ask(tries=3), study="1.2")
    assert server.asked("series") == 3


def test_nobody_there(ask, server):
    asking = Archive("http://127.0.0.1:9/dicom-web", tries=1, environ={})
    with pytest.raises(ArchiveError, match=r"127.0.0.1:9 cannot be reached \(.*refused\)$"):
        search(asking, patient="P4711")


def test_a_place_without_dicomweb_is_told(server):
    asking = Archive(server.url.replace("dicom-web", "elsewhere"), tries=3, environ={})
    with pytest.raises(ArchiveError, match="has no such thing: is this where DICOMweb begins"):
        search(asking, patient="P4711")
    assert server.asked("unknown") == 1


@pytest.mark.parametrize("elsewhere", [False, True], ids=["", "REQUESTS_CA_BUNDLE"])
def test_certificates_are_checked(elsewhere, tmp_path, scan, monkeypatch):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl, which makes a certificate")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=archive",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    if elsewhere:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with archive(context) as server:
        server.add(scan.folder)
        with pytest.raises(ArchiveError, match="could not be trusted .*--ca") as refused:
            search(Archive(server.url, environ={}, tries=3), study=scan.study)
        assert "asked" not in str(refused.value) and server.asked("series") == 0
        assert len(search(Archive(server.url, ca=str(cert), environ={}), study=scan.study)) == 1
