"""The book stays short: how many words its pages show a reader, folded parts and code aside."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import count_words

pytestmark = pytest.mark.browser  # it needs the rendered book, as the tests in a browser do

MOST = 22_000
MOST_ON_THE_FIRST_PAGE = 900


def test_the_pages_do_not_grow(rendered_book: Path):
    counts = count_words.counts(rendered_book)
    assert len(counts) > 15 and all(seen <= everything for seen, everything in counts.values())
    assert counts["intro"][0] <= MOST_ON_THE_FIRST_PAGE
    assert sum(seen for seen, _ in counts.values()) <= MOST, counts
