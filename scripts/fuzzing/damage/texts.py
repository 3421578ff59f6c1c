"""Damaged JSON and XML: keys and tags, values of other kinds, and files that are none."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from scripts.fuzzing.damage.anything import damage_bytes
from scripts.fuzzing.damage.odd import VALUES, odd_word, pick

ENTITIES = '<!DOCTYPE a [<!ENTITY a0 "aaaaaaaaaa">' + "".join(
    f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10)
)  # fmt: skip
"""Ten to the ninth letters in a few lines."""


def damage_json(rng: np.random.Generator, path: Path) -> str:
    """Of an object with fields."""
    if rng.random() < 0.2:
        return damage_bytes(rng, path)
    if rng.random() < 0.15:
        return json_file(rng, path)
    fields = json.loads(path.read_text(encoding="utf-8"))
    said = []
    for _ in range(int(rng.integers(1, 3))):
        name, way = pick(rng, [*fields, "x"]), pick(rng, ("removed", "value", "value", "value", "element", "renamed"))
        old = fields.pop(name, None)
        said.append(f"{name} {way}")
        if way == "value":
            fields[name] = pick(rng, VALUES)
            if isinstance(old, (int, float)) and rng.random() < 0.3:
                fields[name] = pick(rng, (old + 1, -old, old * 1000, old / 1000, str(old), [old], float(old)))
            said[-1] = f"{name} = {str(fields[name])[:40]}"
        elif way == "renamed":
            fields[name[:-1]] = old
        elif way == "element" and isinstance(old, list) and old:
            old[int(rng.integers(len(old)))] = pick(rng, VALUES)
            fields[name] = old if rng.random() < 0.7 else old[:-1]
    path.write_text(json.dumps(fields), encoding="utf-8")
    return f"{path.name}: " + ", ".join(said)


def json_file(rng: np.random.Generator, path: Path) -> str:
    """A whole file that is read in another way than it was written."""
    text = path.read_text(encoding="utf-8")
    first = text[1 : text.index(",")] if "," in text else '"a": 1'
    changes = {
        "deep": lambda: b'{"a":' * 100_000,
        "deep and whole": lambda: b"[" * 3000 + b"]" * 3000,
        "a byte order mark": lambda: b"\xef\xbb\xbf" + text.encode(),
        "UTF-16": lambda: text.encode("utf-16"),
        "not UTF-8": lambda: text.encode() + b"\xff\xfe\xe9",
        "a key twice": lambda: ("{" + first + "," + text[1:]).encode(),
        "a list": lambda: f"[{text}]".encode(),
        "a comment": lambda: ("// x\n" + text).encode(),
        "a comma more": lambda: (text.rstrip()[:-1] + ",}").encode(),
        "a long number": lambda: ("{" + '"x": ' + "9" * 5000 + "," + text[1:]).encode(),
        "a null byte": lambda: text.replace(":", ":\x00", 1).encode(),
        "nothing": lambda: b"null",
    }
    name = pick(rng, tuple(changes))
    path.write_bytes(changes[name]())
    return f"{path.name}: {name}"


def damage_xml(rng: np.random.Generator, path: Path) -> str:
    """Of elements with texts."""
    if rng.random() < 0.2:
        return damage_bytes(rng, path)
    text, what = changed_xml(rng, path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")
    return f"{path.name}: {what}"


def changed_xml(rng: np.random.Generator, text: str) -> tuple[str, str]:
    """Elements removed, doubled, renamed or with other texts; declarations and entities that should not be there."""
    found = list(re.finditer(r"<(\w+)>([^<>]*)</\1>", text))
    element = pick(rng, found)
    name, value = element[1], element[2]

    def put(new: str, every: bool = False) -> str:
        return text.replace(element[0], new) if every else text[: element.start()] + new + text[element.end() :]

    odd = odd_word(rng, value).replace("<", "").replace("\0", "")  # which HDF5's text cannot hold
    body = text[text.index("?>") + 2 :] if "?>" in text else text
    root = re.search(r"<(\w+)[ >]", body)[1]
    changes = {
        f"<{name}> removed": lambda: put(""),
        f"every <{name}> of this value removed": lambda: put("", True),
        f"<{name}> = {odd[:30]!r}": lambda: put(f"<{name}>{odd}</{name}>"),
        f"every <{name}> = {odd[:30]!r}": lambda: re.sub(
            rf"<{name}>[^<>]*</{name}>", lambda _: f"<{name}>{odd}</{name}>", text
        ),
        f"<{name}> twice": lambda: put(f"<{name}>{odd}</{name}>{element[0]}"),
        f"<{name}> renamed": lambda: put(f"<{name}X>{value}</{name}X>"),
        f"<{name}> with an attribute": lambda: put(f'<{name} unit="m">{value}</{name}>'),
        f"<{name}> holds an element": lambda: put(f"<{name}><b>{value}</b></{name}>"),
        f"<{name}> not closed": lambda: put(f"<{name}>{value}"),
        "root renamed": lambda: text.replace(f"<{root}", "<other").replace(f"</{root}", "</other"),
        "without a root": lambda: "",
        "entities": lambda: re.sub(r"<!DOCTYPE \w+>", "", text[: text.index("?>") + 2]) + ENTITIES + "]>"
        + re.sub(r"<!DOCTYPE \w+>", "", body).replace(element[0], f"<{name}>&a9;</{name}>", 1),
        "another file": lambda: text[: text.index("?>") + 2] + '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/hostname">]>'
        + re.sub(r"<!DOCTYPE \w+>", "", body).replace(element[0], f"<{name}>&e;</{name}>", 1),
        "a projection removed": lambda: re.sub(r"<Projection>.*?</Projection>\n?", "", text, count=1, flags=re.DOTALL),
        "all projections removed": lambda: re.sub(r"<Projection>.*</Projection>\n?", "", text, flags=re.DOTALL),
        "a tilt": lambda: text.replace("<Projection>", "<Projection><OutOfPlaneAngle>3</OutOfPlaneAngle>"),
        "declared as UTF-16": lambda: text.replace("?>", ' encoding="UTF-16"?>', 1),
        "another trajectory": lambda: text.replace("cartesian", "radial"),
    }  # fmt: skip
    way = pick(rng, tuple(changes))
    return changes[way](), way
