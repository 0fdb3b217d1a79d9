"""How many words each page of a built book shows, and how many with all that is folded: count_words.py [FOLDER].

FOLDER holds the pages, ``_build/html`` by default. Code behind the switch counts in neither.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[1]


def counts(html: Path) -> dict[str, tuple[int, int]]:
    """Words seen, and words in all, by page."""
    spec = importlib.util.spec_from_file_location("furniture", ROOT / "book" / "_ext" / "furniture.py")
    furniture = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(furniture)
    found = {}
    for file in sorted([*(html / "book").glob("*.html"), *(html / "notebooks").glob("*.html")]):
        article = BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser").select_one("article.bd-article")
        if article is not None:  # a page that has moved has none
            found[file.stem] = furniture.words(article), furniture.words(article, furniture.CODE)
    return found


def main() -> None:
    """Print a line a page, and the sum."""
    found = counts(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "_build" / "html")
    rows = [*found.items(), ("total", tuple(map(sum, zip(*found.values(), strict=True))))]
    for name, (seen, everything) in rows:
        print(f"{seen:7,} {everything:7,}  {name}")


if __name__ == "__main__":
    main()
