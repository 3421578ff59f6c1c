"""The documentation as a site: links lead somewhere in it as they do in the repository, and it asks no other server."""

import importlib
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag, urljoin

import pytest
import yaml

from tests.support.scans import ROOT

API = ("noise", "sampling", "prior", "physics", "physics.thick", "physics.stacks", "physics.ct", "physics.kspace")


def build(root, site):
    """Build a site, strictly; what became of it."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", root / "mkdocs.yml", "-d", site]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, encoding="utf-8", timeout=300)


class Links(HTMLParser):
    """What a page links to, what it loads, and which anchors it has."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loaded, self.anchors = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found.get("id"), found.get("name")}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        elif tag == "link" and found.get("rel") != "canonical" or tag in ("img", "script", "iframe", "source"):
            self.loaded.append(found.get("href") or found.get("src") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def pages(site):
    return {n: Links(p.read_text(encoding="utf-8")) for n, p in site.items() if n.endswith(".html") and n != "404.html"}


@pytest.mark.slow
def test_every_link_leads_to_a_file_and_an_anchor_of_the_site(site, pages):
    broken = []
    for name, page in pages.items():
        for link in page.links + page.loaded:
            path, anchor = urldefrag(urljoin(f"http://here/{name}", link))
            if path.startswith("http://here/"):
                to = unquote(path.removeprefix("http://here/"))
                if to not in site or (anchor and to in pages and unquote(anchor) not in pages[to].anchors):
                    broken.append((name, link))
    assert broken == [] and sum(len(page.links) for page in pages.values()) > 1000


@pytest.mark.slow
def test_no_page_loads_anything_from_elsewhere(pages):
    assert [(n, link) for n, page in pages.items() for link in page.loaded if link.startswith(("http", "//"))] == []


@pytest.mark.slow
def test_the_search_knows_pages_options_and_python(site):
    entries = json.loads(site["search/search_index.json"].read_text(encoding="utf-8"))["docs"]
    for words, place in (
        ("Slices as they were acquired", "how_to/acquired.html"), ("resample_shear", "reference/options.html"),
        ("OrnsteinUhlenbeckNoise", "reference/api/noise.html"), ("Add a noise field", "repository/CONTRIBUTING.html"),
    ):  # fmt: skip
        assert any(e["location"].startswith(place) and words in e["title"] + e["text"] for e in entries), words


@pytest.mark.slow
@pytest.mark.parametrize("package", API)
def test_the_reference_has_all_that_a_package_exports(package, pages):
    module = importlib.import_module(f"interslice.{package}")
    anchors = pages[f"reference/api/{package.split('.')[0]}.html"].anchors
    assert {f"interslice.{package}.{name}" for name in module.__all__} <= anchors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a](b.md) [b](b.md#part) [code](../code.py) [folder](../rooms)", None),
        ("[a](missing.md)", "'missing.md'"),
        ("[a](b.md#nothing)", "does not contain an anchor '#nothing'"),
        ("[a](../missing.py)", "missing.py"),
    ],
)
def test_a_link_that_leads_nowhere_ends_the_build(text, said, tmp_path):
    config = yaml.unsafe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    few = {k: config[k] for k in ("site_name", "strict", "use_directory_urls", "exclude_docs", "validation")}
    few |= {"hooks": [str(ROOT / "scripts/pages/hooks.py")], "nav": [{"A": "index.md"}, {"B": "b.md"}]}
    for name, content in {
        "mkdocs.yml": yaml.dump(few), "docs/index.md": text, "docs/b.md": "# B\n\n## Part\n", "docs/README.md": "# C",
        "code.py": "x = 1\n", "rooms/one.py": "",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    done = build(tmp_path, tmp_path / "site")
    if said is None:
        assert done.returncode == 0, done.stderr
        assert "x = 1" in (tmp_path / "site/repository/code.py.html").read_text(encoding="utf-8")
        assert "one.py" in (tmp_path / "site/repository/rooms.html").read_text(encoding="utf-8")
    else:
        assert done.returncode == 1 and said in done.stderr, done.stderr
