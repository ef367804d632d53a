"""The cache gives back what was put, loses what is damaged, and never gives a wrong vector."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rivals.errors import RivalsError
from rivals.models.cache import VectorCache, text_keys

WIDTH = 5


def vectors_of(texts: list[str]) -> np.ndarray:
    return np.array([[len(text), *(ord(c) for c in text.ljust(4)[:4])] for text in texts], dtype=np.float32)


def names(start: int, stop: int) -> list[str]:
    return [f"t{i}" for i in range(start, stop)]


def segments(folder: Path) -> list[Path]:
    return sorted((folder / "segments").glob("*.seg"))


def fill(folder: Path, *spans: tuple[int, int]) -> None:
    for start, stop in spans:
        with VectorCache(folder) as cache:
            cache.put(text_keys("m", names(start, stop)), vectors_of(names(start, stop)))


def test_what_was_put_comes_back_bit_for_bit(tmp_path: Path) -> None:
    texts = names(0, 100)
    vectors = np.random.default_rng(0).standard_normal((100, WIDTH)).astype(np.float32)
    vectors[3, 2] = np.float32(1e-42)  # a denormal number stays what it is
    with VectorCache(tmp_path) as cache:
        cache.put(text_keys("m", texts), vectors)
        before, found = cache.get(text_keys("m", texts), WIDTH)
        assert found.all()
        assert before.tobytes() == vectors.tobytes()
    cache = VectorCache(tmp_path)
    after, found = cache.get(text_keys("m", [*reversed(texts), "new"]), WIDTH)
    assert found.tolist() == [True] * 100 + [False]
    assert after[:100].tobytes() == vectors[::-1].tobytes()
    assert (cache.hits, cache.misses) == (100, 1)
    assert len(cache) == 100


def test_models_prompts_and_widths_do_not_mix(tmp_path: Path) -> None:
    fill(tmp_path, (0, 10))
    cache = VectorCache(tmp_path)
    assert not cache.get(text_keys("other", names(0, 10)), WIDTH)[1].any()
    assert not cache.get(text_keys("m", names(0, 10)), WIDTH + 1)[1].any()
    assert cache.get(text_keys("m", names(0, 10)), WIDTH)[1].all()


def test_any_truncation_loses_rows_and_never_gives_a_wrong_one(tmp_path: Path) -> None:
    fill(tmp_path, (0, 40), (40, 80))
    last = segments(tmp_path)[-1]
    whole = last.read_bytes()
    rng = np.random.default_rng(1)
    for size in [0, 1, 8, 23, 24, len(whole) - 1, *rng.integers(0, len(whole), 40).tolist()]:
        last.write_bytes(whole[:size])
        vectors, found = VectorCache(tmp_path).get(text_keys("m", names(0, 80)), WIDTH)
        assert found[:40].all()
        assert not found[40:].any()
        assert np.array_equal(vectors[:40], vectors_of(names(0, 40)))


def test_flipped_bytes_never_give_a_wrong_vector(tmp_path: Path) -> None:
    fill(tmp_path, (0, 40))
    place = segments(tmp_path)[0]
    whole = place.read_bytes()
    expected = vectors_of(names(0, 40))
    rng = np.random.default_rng(2)
    lost = 0
    for _ in range(150):
        damaged = bytearray(whole)
        at = int(rng.integers(0, len(whole)))
        damaged[at] ^= 1 << int(rng.integers(0, 8))
        place.write_bytes(bytes(damaged))
        vectors, found = VectorCache(tmp_path).get(text_keys("m", names(0, 40)), WIDTH)
        assert np.array_equal(vectors[found], expected[found])
        lost += int((~found).sum())
    assert lost > 0


def test_a_damaged_row_computed_again_is_found(tmp_path: Path) -> None:
    fill(tmp_path, (0, 40))
    place = segments(tmp_path)[0]
    damaged = bytearray(place.read_bytes())
    damaged[-20] ^= 1
    place.write_bytes(bytes(damaged))
    assert VectorCache(tmp_path).get(text_keys("m", names(0, 40)), WIDTH)[1].sum() == 39
    fill(tmp_path, (39, 40))
    vectors, found = VectorCache(tmp_path).get(text_keys("m", names(0, 40)), WIDTH)
    assert found.all()
    assert np.array_equal(vectors, vectors_of(names(0, 40)))


def test_threads_share_one_cache(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path)

    def work(start: int) -> bool:
        for i in range(start, start + 60):
            cache.put(text_keys("m", names(i, i + 1)), vectors_of(names(i, i + 1)))
            if i % 10 == 0:
                cache.flush()
            cache.get(text_keys("m", names(start, i + 1)), WIDTH)
        cache.flush()
        return bool(cache.get(text_keys("m", names(start, start + 60)), WIDTH)[1].all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, [0, 60, 120, 180]))
    vectors, found = VectorCache(tmp_path).get(text_keys("m", names(0, 240)), WIDTH)
    assert found.all()
    assert np.array_equal(vectors, vectors_of(names(0, 240)))


def test_a_vector_that_is_being_written_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = VectorCache(tmp_path)
    cache.put(text_keys("m", names(0, 5)), vectors_of(names(0, 5)))
    writing, seen = threading.Event(), []
    write = cache._write

    def slow(*arguments: Any) -> None:
        writing.set()
        time.sleep(0.05)
        write(*arguments)

    def read() -> None:
        assert writing.wait(10)
        seen.append(bool(cache.get(text_keys("m", names(0, 5)), WIDTH)[1].all()))

    monkeypatch.setattr(cache, "_write", slow)
    reader = threading.Thread(target=read)
    reader.start()
    cache.flush()
    reader.join()
    assert seen == [True]


def test_a_segment_that_shrinks_while_open_is_a_miss(tmp_path: Path) -> None:
    fill(tmp_path, (0, 40))
    cache = VectorCache(tmp_path)
    assert cache.get(text_keys("m", names(0, 40)), WIDTH)[1].all()
    place = segments(tmp_path)[0]
    place.write_bytes(place.read_bytes()[:-30])
    assert not cache.get(text_keys("m", names(0, 40)), WIDTH)[1].any()


def test_the_oldest_segments_go_first(tmp_path: Path) -> None:
    fill(tmp_path, (0, 50), (50, 100))
    size = segments(tmp_path)[0].stat().st_size
    with VectorCache(tmp_path, max_bytes=2 * size) as cache:
        cache.put(text_keys("m", names(100, 150)), vectors_of(names(100, 150)))
    _, found = VectorCache(tmp_path).get(text_keys("m", names(0, 150)), WIDTH)
    assert found.tolist() == [False] * 50 + [True] * 100


def test_small_puts_wait_and_become_one_segment(tmp_path: Path) -> None:
    with VectorCache(tmp_path) as cache:
        for i in range(20):
            cache.put(text_keys("m", names(i, i + 1)), vectors_of(names(i, i + 1)))
        assert segments(tmp_path) == []
        assert cache.get(text_keys("m", names(0, 20)), WIDTH)[1].all()
    assert len(segments(tmp_path)) == 1


def test_old_leftovers_are_cleared_and_fresh_ones_kept(tmp_path: Path) -> None:
    fill(tmp_path, (0, 3))
    old, fresh = tmp_path / "segments" / ".a.seg.x.tmp", tmp_path / "segments" / ".b.seg.y.tmp"
    for path in (old, fresh):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 3 * 86400,) * 2)
    cache = VectorCache(tmp_path)
    assert (old.exists(), fresh.exists(), len(cache)) == (False, True, 3)


def test_two_processes_write_one_folder(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from rivals.models.cache import VectorCache, text_keys\n"
        "start = int(sys.argv[2])\n"
        "with VectorCache(sys.argv[1]) as cache:\n"
        "    for i in range(start, start + 200):\n"
        "        cache.put(text_keys('m', [f't{i}']), np.full((1, 3), i, np.float32))\n"
        "        if i % 20 == 0: cache.flush()\n"
    )
    mine = VectorCache(tmp_path)
    jobs = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(start)]) for start in (0, 150)]
    assert [job.wait(60) for job in jobs] == [0, 0]
    vectors, found = mine.get(text_keys("m", names(0, 350)), 3)
    assert found.all()
    assert np.array_equal(vectors[:, 0], np.arange(350))


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RivalsError, match="cannot be made"):
        VectorCache(tmp_path / "file")
    with pytest.raises(RivalsError, match="max_bytes"):
        VectorCache(tmp_path / "c", max_bytes=-1)
    with pytest.raises(RivalsError, match="one vector for each"):
        VectorCache(tmp_path / "c").put(text_keys("m", ["a"]), np.zeros((2, 3), np.float32))


def test_odd_texts_have_keys() -> None:
    texts = ["", "\0", "\ud800", "é", "e\u0301", "x" * 100_000]
    keys = text_keys("m", texts)
    assert len(np.unique(keys, axis=0)) == len(texts)
