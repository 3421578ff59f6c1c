"""What MkDocs is told when it builds the site of docs/ (mkdocs.yml).

The pages of docs/ are read in the repository, too, so links lead to files as they lie there. Of those outside docs/,
the site has a page each, with their text: a link that leads from docs/ to a file of the repository works in both.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
MARKER = re.compile(r"^<!-- .* -->$", re.MULTILINE)
CARD, CARD_AS = "docs/README.md", "reference/model_card.md"
LANGUAGES = {".py": "python", ".json": "json", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml"}

origins: dict[str, str] = {}
"""Page of the site: the file of the repository that it shows, where that is another one."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the model card, and a page for each file outside docs/ that a page links to."""
    root, docs = Path(config.config_file_path).parent, Path(config.docs_dir).name
    origins.clear()
    add(files, config, CARD_AS, CARD, (root / CARD).read_text(encoding="utf-8"))
    waiting = [f"{docs}/{f.src_uri}" for f in files.documentation_pages() if f.src_uri not in origins] + [CARD]
    while waiting:
        source = waiting.pop()
        for path in outside(source, (root / source).read_text(encoding="utf-8"), docs):
            page = page_of(path)
            if page not in origins and (root / path).exists():
                add(files, config, page, path, shown(root / path, path))
                if path.endswith(".md"):
                    waiting.append(path)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository into links to their pages, and take out the markers of generated text."""
    docs, uri = Path(config.docs_dir).name, page.file.src_uri
    source = origins.get(uri, f"{docs}/{uri}")

    def led(match: re.Match) -> str:
        path = target(source, match[2])
        if path is None:
            return match[0]
        to = path.removeprefix(f"{docs}/") if path.startswith(f"{docs}/") and path != CARD else page_of(path)
        return f"{match[1]}{posixpath.relpath(to, posixpath.dirname(uri) or '.')}{match[3]}"

    return MARKER.sub("", outside_code(LINK, led, markdown))


def outside_code(pattern: re.Pattern, replace, text: str) -> str:
    """`pattern.sub` but in blocks of code."""
    blocks = FENCE.findall(text)
    parts = [pattern.sub(replace, part) for part in FENCE.split(text)]
    return "".join(part + block for part, block in zip(parts, [*blocks, ""]))


def target(source: str, link: str) -> str | None:
    """The path from the root that a link in `source` leads to; nothing for other servers."""
    if re.match(r"[a-z]+:", link):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def outside(source: str, text: str, docs: str) -> list[str]:
    """Paths of the repository that a text links to and that are not in docs/."""
    paths = (target(source, link) for _, link, _ in LINK.findall(FENCE.sub("", text)))
    return [p for p in paths if p and p not in (".", "..") and not p.startswith((f"{docs}/", "../"))]


def page_of(path: str) -> str:
    """The page that shows a file of the repository that is none of the pages in docs/."""
    return CARD_AS if path == CARD else f"repository/{path if path.endswith('.md') else f'{path}.md'}"


def shown(file: Path, path: str) -> str:
    """The text of that page: what is in a folder, or the file itself."""
    if file.is_dir():
        names = sorted(f.name + "/" * f.is_dir() for f in file.iterdir() if f.name[0] not in "._")
        return f"# {path}\n\nA folder of the repository:\n\n" + "".join(f"- `{name}`\n" for name in names)
    text = file.read_text(encoding="utf-8")
    if path.endswith(".md"):
        return text
    if path.endswith(".ipynb"):
        cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
        return "\n\n".join(source if kind == "markdown" else f"```python\n{source}\n```" for kind, source in cells)
    return f"# {path}\n\n````{LANGUAGES.get(file.suffix, 'text')}\n{text.rstrip()}\n````\n"


def add(files: Files, config: MkDocsConfig, uri: str, path: str, content: str) -> None:
    """A page of the site that is not in docs/."""
    origins[uri] = path
    files.append(File.generated(config, uri, content=content, inclusion=InclusionLevel.NOT_IN_NAV))
