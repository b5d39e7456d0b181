"""A gigabyte of raw text through `wenmai corpus`: memory, speed, what is found, and what a kill changes.

    python benchmarks/corpus.py --json benchmarks/results/corpus.json
    python benchmarks/corpus.py --quick

The raw text is made of sentences of ``../shared/data/raw_text`` (modern and classical Chinese): a document is 8 to 16
sentences drawn at random, so a sentence comes many times, but two documents are alike only where one was planted as a
copy. Planted are, each with a field that says so:

* copies of earlier documents in which 5, 10, 15 or 20 of 100 characters are replaced, removed or have one added before
  them, and exact copies
* documents with a sentence of the test sets (thucnews_titles, msra_ner) in the middle, half of them in full width with
  other punctuation and spaces
* documents that cleaning should refuse: English, tables of digits, one sentence again and again, too short; a tenth
  of all documents has markup and lines of navigation around it. A tenth of the text is in GB18030.

Each step is a process of its own, so its peak is its own. Cleaning, keeping test sets out and dedup read all of it, and
every step a smaller text made the same way. On that one they are also killed (SIGKILL, the whole group of processes) at
several moments and resumed, and what they write is compared byte by byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
TEST_SETS = ("thucnews_titles/test.txt", "msra_ner/dh_msra.first12000.txt")
MEGABYTES, QUICK_MEGABYTES = 1000, 2
SMALL_MEGABYTES, QUICK_SMALL_MEGABYTES = 32, 1
EDITS = (5, 10, 15, 20)
PLANTED_SHARE = 0.005
"""Of all documents, for each kind of planted ones."""
SETTINGS = {
    "dedup": ["dedup.threshold=0.5", "dedup.permutations=128"],
    "dedup, heavy edits": ["dedup.threshold=0.3", "dedup.permutations=256"],
}
PACKAGES = ("wenmai", "numpy", "rensa", "ftfy", "pydantic")
MAXRSS_KIB = 1 if sys.platform.startswith("linux") else 1 / 1024


def sentences(data: Path) -> list[str]:
    """The pool: lines of 8 to 60 characters, and poems."""
    lines: list[str] = []
    for path in sorted((data / "raw_text" / "classical_modern").glob("*.txt")):
        lines += path.read_text(encoding="utf-8").split("\n")
    for path in sorted((data / "raw_text" / "chinese_poetry").glob("*.json")):
        poems = json.loads(path.read_text(encoding="utf-8"))
        for poem in poems if isinstance(poems, list) else [poems]:
            lines.append("".join(poem.get("paragraphs") or poem.get("content") or []))
    return list(dict.fromkeys(line.strip() for line in lines if 8 <= len(line.strip()) <= 60))


def test_sentences(data: Path) -> list[str]:
    """Whole texts of the test sets, of at least 8 letters and digits: shorter ones are not looked for."""
    from wenmai.corpus.contamination import squeezed
    from wenmai.corpus.test_sets import texts_of

    found = [text for name in TEST_SETS for text in texts_of(data / name)]
    return list(dict.fromkeys(text for text in found if len(squeezed(text)) >= 8))


def edited(text: str, percent: int, alphabet: str, rng: random.Random) -> str:
    """A copy in which so many of 100 characters are replaced, removed, or get a neighbour."""
    kinds = rng.choices(range(3), k=len(text))
    chosen = set(rng.sample(range(len(text)), round(len(text) * percent / 100)))
    out = []
    for i, character in enumerate(text):
        if i not in chosen:
            out.append(character)
        elif kinds[i] < 2:
            out.append(rng.choice(alphabet) + (character if kinds[i] else ""))
    return "".join(out)


def disguised(text: str, rng: random.Random) -> str:
    """The same sentence in full width, with other punctuation and spaces between."""
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)
    at = rng.randrange(1, len(wide))
    return f"{wide[:at]} {wide[at:]}".replace("，", "、").replace("：", "——")


def documents(data: Path, megabytes: float, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Records with ``text``, and ``planted`` where something was."""
    rng = random.Random(seed)
    pool, tests = sentences(data), test_sentences(data)
    alphabet = "".join(sorted({c for line in pool[:5000] for c in line}))
    written, earlier = 0, [""] * 300
    number = 0
    while written < megabytes * 1e6:
        drawn = rng.random() / PLANTED_SHARE
        text = "".join(rng.choices(pool, k=rng.randint(8, 16)))
        record: dict[str, Any] = {"text": text}
        kind = int(drawn) if drawn < 12 and number > 300 else -1
        if 0 <= kind < 4:
            record = {
                "text": edited(rng.choice(earlier), EDITS[kind], alphabet, rng),
                "planted": f"{EDITS[kind]} %",
            }
        elif kind == 4:
            record = {"text": rng.choice(earlier), "planted": "exact"}
        elif kind in (5, 6):
            sentence = rng.choice(tests)
            told = sentence if kind == 5 else disguised(sentence, rng)
            record = {
                "text": f"{text[: len(text) // 2]}。{told}。{text[len(text) // 2 :]}",
                "planted": "test",
                "sentence": sentence,
            }
        elif kind == 7:
            record = {
                "text": "All rights to this page are reserved by its owners. " * 3,
                "planted": "english",
            }
        elif kind == 8:
            record = {
                "text": "表" + " ".join(str(rng.randrange(10**6)) for _ in range(40)),
                "planted": "digits",
            }
        elif kind == 9:
            record = {"text": rng.choice(pool) * 6, "planted": "repeated"}
        elif kind == 10:
            record = {"text": text[:5], "planted": "short"}
        else:
            earlier[number % len(earlier)] = text
            if rng.random() < 0.1:
                record["text"] = (
                    f"<div>首页 | 登录 | 注册</div>\n<p>{text}</p>\n上一页 下一页\n京ICP备{number % 10**8:08d}号"
                )
        number += 1
        written += len(record["text"].encode()) + 12
        yield record


def make(folder: Path, data: Path, megabytes: float) -> None:
    """The raw text: jsonl, and a tenth as lines of text in GB18030."""
    raw = folder / "raw"
    raw.mkdir()
    with (
        (raw / "web.jsonl").open("w", encoding="utf-8") as file,
        (raw / "old.txt").open("w", encoding="gb18030") as other,
    ):
        for number, record in enumerate(documents(data, megabytes)):
            if number % 10 == 9 and "planted" not in record:
                other.write(record["text"].replace("\n", " ") + "\n")
            else:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")


def command(stage: str, folder: Path, data: Path, processes: int) -> list[str]:
    """The arguments of ``wenmai`` for a step."""
    outputs = {
        "clean": "clean",
        "decontaminate": "kept",
        "dedup": "unique",
        "dedup, heavy edits": "unique-heavy",
        "mix": "mixture",
    }
    inputs = {
        "clean": "raw",
        "decontaminate": "clean.jsonl",
        "dedup": "clean.jsonl",
        "dedup, heavy edits": "clean.jsonl",
        "stats": "clean.jsonl",
    }
    words = ["corpus", stage.split(",")[0]]
    if stage == "mix":
        words += [f"a={folder / 'kept.jsonl'}:1", f"b={folder / 'unique.jsonl'}:2"]
        words += ["--set", "mix.max_epochs=4"]
    else:
        words.append(str(folder / inputs[stage]))
    if stage in outputs:
        words += ["--output", str(folder / f"{outputs[stage]}.jsonl")]
    if stage in outputs and stage != "mix":
        words += ["--rejects", str(folder / f"{outputs[stage]}.rejects.jsonl")]
    if stage == "decontaminate":
        words += [word for name in TEST_SETS for word in ("--test-set", str(data / name))]
    for setting in SETTINGS.get(stage, []):
        words += ["--set", setting]
    return [*words, "--processes", str(processes), "--json"]


STAGES = ("clean", "decontaminate", "dedup", "dedup, heavy edits", "mix", "stats")


def measured(words: list[str]) -> dict[str, Any]:
    """Runs ``wenmai`` in this process; memory and time are all its own."""
    import contextlib
    import io

    from wenmai.cli import main

    started, printed = time.perf_counter(), io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main(words)
    if code:
        raise SystemExit(code)
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "seconds": time.perf_counter() - started,
        "processor_seconds": sum(use.ru_utime + use.ru_stime for use in (own, children)),
        "peak_mib": own.ru_maxrss * MAXRSS_KIB / 1024,
        "largest_worker_mib": children.ru_maxrss * MAXRSS_KIB / 1024,
        "torch_imported": "torch" in sys.modules,
        "report": json.loads(printed.getvalue()),
    }


def planted(path: Path) -> Counter[str]:
    """How many of each kind a file holds."""
    counts: Counter[str] = Counter()
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            for line in file:
                counts[json.loads(line).get("planted", "none")] += 1
    return counts


def duplicates_found(folder: Path, name: str) -> dict[str, Any]:
    """Recall for each kind of copy, and precision over all that was left out."""
    before, after = planted(folder / "clean.jsonl"), planted(folder / f"{name}.jsonl")
    kinds = ("exact", *(f"{edit} %" for edit in EDITS))
    dropped = {kind: before[kind] - after[kind] for kind in before}
    wrong = sum(n for kind, n in dropped.items() if kind not in kinds)
    alike, looked_at = really_similar(folder, name, kinds)
    right = sum(dropped.get(kind, 0) for kind in kinds)
    return {
        "planted": {kind: before[kind] for kind in kinds},
        "recall": {kind: dropped.get(kind, 0) / max(1, before[kind]) for kind in kinds},
        "left_out": right + wrong,
        "wrong": wrong,
        "precision": right / max(1, right + wrong),
        "wrong_looked_at": looked_at,
        "of_these_similar_by_exact_jaccard": alike,
    }


def really_similar(folder: Path, name: str, kinds: tuple[str, ...], most: int = 1000) -> tuple[int, int]:
    """Of the first documents that were left out though nobody planted them: how many reach the threshold with the
    document that stayed for them, by the shingles themselves."""
    from wenmai.corpus.contamination import squeezed
    from wenmai.corpus.minhash import jaccard, shingles

    threshold = 0.3 if name.endswith("heavy") else 0.5
    asked: list[tuple[str, int]] = []
    with (folder / f"{name}.rejects.jsonl").open(encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            if record.get("planted") not in kinds and len(asked) < most:
                asked.append((record["text"], int(record["detail"].split()[2])))
    wanted = {number for _, number in asked}
    with (folder / "clean.jsonl").open(encoding="utf-8") as file:
        firsts = {i: json.loads(line)["text"] for i, line in enumerate(file) if i in wanted}
    pairs = ((shingles(squeezed(text), 3), shingles(squeezed(firsts[number]), 3)) for text, number in asked)
    return sum(jaccard(left, right) >= threshold for left, right in pairs), len(asked)


def tests_left(folder: Path, data: Path) -> dict[str, Any]:
    """Planted test sentences that are still in the corpus: by their field, and by a search of their own."""
    from wenmai.corpus.contamination import squeezed

    before, after = planted(folder / "clean.jsonl"), planted(folder / "kept.jsonl")
    sought: set[str] = set()
    with (folder / "clean.jsonl").open(encoding="utf-8") as file:
        for line in file:
            if "sentence" in (record := json.loads(line)):
                sought.add(squeezed(record["sentence"]))
    by_start: dict[str, list[str]] = {}
    for sentence in sought:
        by_start.setdefault(sentence[:8], []).append(sentence)
    still = 0
    with (folder / "kept.jsonl").open(encoding="utf-8") as file:
        for line in file:
            text = squeezed(json.loads(line)["text"])
            starts = (by_start.get(text[i : i + 8], ()) for i in range(len(text) - 7))
            still += any(sentence in text for found in starts for sentence in found)
    others = {kind: before[kind] - after[kind] for kind in before if kind != "test"}
    return {
        "planted": before["test"],
        "left": after["test"],
        "documents_that_still_hold_one": still,
        "other_documents_left_out": sum(others.values()),
        "of": sum(before[kind] for kind in others),
    }


def refused(folder: Path) -> dict[str, dict[str, int]]:
    """What became of the documents that cleaning should refuse."""
    after = planted(folder / "clean.jsonl")
    before = planted(folder / "raw" / "web.jsonl")
    kinds = ("english", "digits", "repeated", "short")
    return {kind: {"planted": before[kind], "kept": after[kind]} for kind in kinds}


def killed_and_resumed(folder: Path, data: Path, processes: int, quick: bool) -> list[dict[str, Any]]:
    """Each step once without a break, and once killed at a fifth, two and three fifths of its time."""
    found = []
    for stage in ("clean", "dedup") if quick else ("clean", "decontaminate", "dedup", "mix"):
        words = command(stage, folder, data, processes)
        started = time.perf_counter()
        run_cli([*words, "--overwrite"])
        seconds = time.perf_counter() - started
        output = Path(words[words.index("--output") + 1])
        report = output.with_name(f"{output.stem}.report.json")
        whole = digests(output, report)
        output.unlink(), report.unlink()
        kills = 0
        for part in (0.2, 0.4, 0.6):
            kills += killed_after(seconds * part, [*words, "--resume"])
        run_cli([*words, "--resume"])
        found.append({"step": stage, "kills": kills, "identical": digests(output, report) == whole})
    return found


def cli(words: list[str]) -> list[str]:
    return [sys.executable, "-m", "wenmai", *words]


def run_cli(words: list[str]) -> None:
    subprocess.run(cli(words), check=True, stdout=subprocess.DEVNULL)


def killed_after(seconds: float, words: list[str]) -> int:
    """Whether there was still something to kill."""
    process = subprocess.Popen(
        cli(words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    time.sleep(seconds)
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return int(alive)


def digests(*paths: Path) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def table(page: dict[str, Any]) -> str:
    lines = [
        "| step | MB | seconds | of a processor | documents/s | MB/s | peak memory | of the largest worker |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for stage in page["steps"]:
        lines.append(
            f"| {stage['step']} | {stage['bytes'] / 1e6:.0f} | {stage['seconds']:.1f} "
            f"| {stage['processor_seconds']:.1f} "
            f"| {stage['documents_per_second']:,.0f} | {stage['megabytes_per_second']:.1f} "
            f"| {stage['peak_mib']:.0f} MiB | {stage['largest_worker_mib']:.0f} MiB |"
        )
    kinds = ("exact", *(f"{edit} %" for edit in EDITS))
    lines += ["", f"| planted copies | {' | '.join(kinds)} | precision |", "| --- " * (len(kinds) + 2) + "|"]
    for name, found in page["duplicates"].items():
        recalls = " | ".join(f"{found['recall'][kind]:.3f}" for kind in kinds)
        lines.append(f"| recall, {name} | {recalls} | {found['precision']:.4f} |")
    tests = page["tests"]
    lines += [
        "",
        f"test sentences: {tests['planted']} planted, {tests['left']} left, "
        f"{tests['documents_that_still_hold_one']} found by a search; "
        f"{tests['other_documents_left_out']} of {tests['of']} other documents left out",
        *(f"{kind}: {n['planted']} planted, {n['kept']} kept" for kind, n in page["refused"].items()),
        *(f"{one['step']}: {one['kills']} kills, identical: {one['identical']}" for one in page["resumed"]),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=float, default=MEGABYTES)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with raw_text and the test sets")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_MEGABYTES} MB: under a minute")
    parser.add_argument("--json", type=Path, help="write what was found to this file")
    parser.add_argument("--folder", type=Path, help="keep the files here; default: a temporary folder")
    parser.add_argument("--read", type=Path, help="print what an earlier --json holds, and measure nothing")
    parser.add_argument("--make", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(table(json.loads(options.read.read_text(encoding="utf-8"))))
        return
    if not (options.data / "raw_text").is_dir():
        raise SystemExit(f"{options.data} has no raw_text; give its folder with --data")
    if options.make:
        make(options.folder, options.data, options.make)
        return
    if options.stage:
        words = command(options.stage, options.folder, options.data, options.processes)
        print(json.dumps(measured(words)))
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    megabytes = QUICK_MEGABYTES if options.quick else options.megabytes
    with tempfile.TemporaryDirectory(prefix="wenmai-corpus-") as name:
        page = benchmark(options.folder or Path(name), options, megabytes)
    print(f"{megabytes:g} MB of raw text, {options.processes} processes", table(page), sep="\n\n")
    if options.json:
        from wenmai.atomic import write_text

        write_text(options.json, json.dumps(page, ensure_ascii=False, indent=1) + "\n")


def benchmark(folder: Path, options: argparse.Namespace, megabytes: float) -> dict[str, Any]:
    shared = ["--data", str(options.data), "--processes", str(options.processes)]

    def again(*arguments: str) -> bytes:
        words = [sys.executable, __file__, *shared, *arguments]
        return subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout

    large, small = folder / "large", folder / "small"
    large.mkdir(parents=True), small.mkdir()
    again("--make", str(megabytes), "--folder", str(large))
    again("--make", str(QUICK_SMALL_MEGABYTES if options.quick else SMALL_MEGABYTES), "--folder", str(small))
    steps = []
    for stage, where in [*((stage, large) for stage in STAGES[:3]), *((stage, small) for stage in STAGES)]:
        found = json.loads(again("--stage", stage, "--folder", str(where)))
        total = found.pop("report")["total"]
        documents = total.get("documents_in", total.get("documents"))
        read = total.get("bytes_in") or total.get("bytes") or total["bytes_out"]
        rates = {
            "documents_per_second": documents / found["seconds"],
            "megabytes_per_second": read / 1e6 / found["seconds"],
        }
        steps.append({"step": stage, "documents": documents, "bytes": read, **found, **rates})
        print(f"{stage}: {found['seconds']:.0f} s", file=sys.stderr)
    return {
        "benchmark": "corpus",
        "date": time.strftime("%Y-%m-%d"),
        "megabytes": sum(path.stat().st_size for path in (large / "raw").iterdir()) / 1e6,
        "processes": options.processes,
        "machine": f"{platform.machine()}, {platform.system()}, {os.cpu_count()} processors",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "steps": steps,
        "duplicates": {
            "threshold 0.5, 128 permutations": duplicates_found(large, "unique"),
            "threshold 0.5, 128 permutations, small text": duplicates_found(small, "unique"),
            "threshold 0.3, 256 permutations, small text": duplicates_found(small, "unique-heavy"),
        },
        "tests": tests_left(large, options.data),
        "refused": refused(large),
        "resumed": killed_and_resumed(small, options.data, options.processes, options.quick),
    }


if __name__ == "__main__":
    main()
