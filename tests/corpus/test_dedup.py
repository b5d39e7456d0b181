"""Equal and nearly equal documents: estimates beside exact similarity, the first stays, whatever the cutting."""

from __future__ import annotations

import json
import random
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from corpus.texts import edited, made_up, texts_in, write_records
from wenmai.corpus import families as families_module
from wenmai.corpus.dedup import bare, dedup
from wenmai.corpus.families import Families, groups, join_equal, starts_of
from wenmai.corpus.minhash import band_keys, bands, estimated, jaccard, share_a_key, shingles, signatures
from wenmai.corpus.running import Job
from wenmai.corpus.settings import DedupConfig
from wenmai.errors import UserError

pytest.importorskip("rensa")


def family_of_copies() -> tuple[list[str], list[str]]:
    """Texts, each followed somewhere by copies, and what should stay."""
    originals = made_up(60, length=120)
    copies = [edited(text, 0.05, i) for i, text in enumerate(originals[:20])]
    spaced = [" ".join(text).replace("。", "！") for text in originals[20:30]]
    return [*originals, *copies, *spaced], originals


def test_estimates_are_those_of_the_exact_similarity() -> None:
    text = made_up(1, length=400)[0]
    texts = [text, *(edited(text, share, i) for i, share in enumerate((0.02, 0.05, 0.1, 0.2, 0.4)))]
    shingled = [shingles(bare(one), 3) for one in texts]
    rows = signatures(shingled, 512)
    pairs = list(combinations(range(len(texts)), 2))
    exact = np.array([jaccard(shingled[i], shingled[j]) for i, j in pairs])
    by_hand = [
        len(left & right) / len(left | right)
        for left, right in (
            [{bare(texts[k])[at : at + 3] for at in range(len(bare(texts[k])) - 2)} for k in pair]
            for pair in pairs
        )
    ]
    assert exact == pytest.approx(by_hand)
    left, right = (rows[[pair[side] for pair in pairs]] for side in (0, 1))
    # three and a half standard deviations of a mean of 512 draws
    assert np.abs(estimated(left, right) - exact).max() < 3.5 * np.sqrt(0.25 / 512)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 1.0])
def test_bands_meet_what_is_at_the_threshold(threshold: float) -> None:
    b, r = bands(threshold, 128)
    assert b * r <= 128 and share_a_key(threshold, b, r) >= 0.95
    assert r == 128 or share_a_key(threshold, 128 // (r + 1), r + 1) < 0.95


def test_keys_are_equal_where_the_values_of_a_band_are() -> None:
    rows = np.random.default_rng(0).integers(0, 2, (40, 12)).astype(np.uint16)
    keys = band_keys(rows, 4, 3)
    for band in range(4):
        values = [tuple(row) for row in rows[:, 3 * band : 3 * band + 3].tolist()]
        for i, j in combinations(range(40), 2):
            assert (keys[band][i] == keys[band][j]) == (values[i] == values[j])


@pytest.mark.parametrize("seed", range(5))
def test_families_are_those_of_a_search_through_the_graph(seed: int) -> None:
    rng = random.Random(seed)
    pairs = [(rng.randrange(60), rng.randrange(60)) for _ in range(45)]
    families = Families(60)
    for some in (pairs[:20], pairs[20:]):
        families.join(np.array([a for a, _ in some]), np.array([b for _, b in some]))
    neighbours: dict[int, set[int]] = {i: {i} for i in range(60)}
    for a, b in pairs:
        neighbours[a].add(b)
        neighbours[b].add(a)
    for i in range(60):
        reached, open_ = {i}, [i]
        while open_:
            new = neighbours[open_.pop()] - reached
            reached |= new
            open_ += new
        assert families.first[i] == min(reached)


def test_keys_are_joined_in_slices_too(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = np.random.default_rng(1).integers(0, 2**64, 300, np.uint64)[np.arange(600) % 300]
    rows = np.arange(600)
    monkeypatch.setattr(families_module, "SLICE", 64)
    families = Families(600)
    join_equal(families, lambda: iter([(keys[:250], rows[:250]), (keys[250:], rows[250:])]), 600)
    assert families.first.tolist() == [i % 300 for i in range(600)]


def test_groups_pair_with_the_first() -> None:
    first, further = groups(np.array([5, 3, 5, 5, 3], np.uint64), np.array([4, 1, 0, 2, 7]))
    assert sorted(zip(first.tolist(), further.tolist(), strict=True)) == [(0, 2), (0, 4), (1, 7)]
    assert starts_of([2, 0, 3]).tolist() == [0, 2, 2, 5]


def test_the_first_stays(tmp_path: Path) -> None:
    texts, originals = family_of_copies()
    given = write_records(tmp_path / "in.jsonl", [{"text": text, "n": i} for i, text in enumerate(texts)])
    job = Job([str(given)], tmp_path / "out.jsonl", rejects=tmp_path / "rejects.jsonl")
    report = dedup(job, DedupConfig())
    assert texts_in(tmp_path / "out.jsonl") == originals
    assert report["total"]["dropped"] == {"near_duplicate": 20, "exact_duplicate": 10}
    rejects = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert [int(one["detail"].split()[2]) for one in rejects] == [*range(20), *range(20, 30)]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("chunk_bytes", [3000, 9000])
@pytest.mark.parametrize("processes", [1, 2])
def test_neither_pieces_nor_processes_change_the_result(
    tmp_path: Path, chunk_bytes: int, processes: int
) -> None:
    texts, originals = family_of_copies()
    given = write_records(tmp_path / "in.jsonl", texts)
    job = Job([str(given)], tmp_path / "out.jsonl", chunk_bytes=chunk_bytes, processes=processes)
    dedup(job, DedupConfig())
    assert texts_in(tmp_path / "out.jsonl") == originals


def test_another_order_leaves_as_many(tmp_path: Path) -> None:
    texts, originals = family_of_copies()
    random.Random(3).shuffle(texts)
    given = write_records(tmp_path / "in.jsonl", texts)
    dedup(Job([str(given)], tmp_path / "out.jsonl"), DedupConfig())
    kept = texts_in(tmp_path / "out.jsonl")
    assert len(kept) == len(originals) and kept == [text for text in texts if text in set(kept)]


def test_without_near_only_equal_ones_go(tmp_path: Path) -> None:
    texts, originals = family_of_copies()
    given = write_records(tmp_path / "in.jsonl", texts)
    report = dedup(Job([str(given)], tmp_path / "out.jsonl"), DedupConfig(near=False))
    assert report["total"]["dropped"] == {"exact_duplicate": 10}
    assert len(texts_in(tmp_path / "out.jsonl")) == len(originals) + 20


def test_a_higher_threshold_leaves_more(tmp_path: Path) -> None:
    original = made_up(1, length=300)[0]
    given = write_records(tmp_path / "in.jsonl", [original, edited(original, 0.1, 1)])
    for threshold, kept in ((0.4, 1), (0.8, 2)):
        job = Job([str(given)], tmp_path / "out.jsonl", overwrite=True)
        dedup(job, DedupConfig(threshold=threshold))
        assert len(texts_in(tmp_path / "out.jsonl")) == kept


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rensa", None)
    given = write_records(tmp_path / "in.jsonl", made_up(2))
    with pytest.raises(UserError, match=r'rensa: pip install "wenmai\[corpus\]"'):
        dedup(Job([str(given)], tmp_path / "out.jsonl"), DedupConfig())
