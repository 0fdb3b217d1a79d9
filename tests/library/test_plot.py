"""The picture of a probed network: files that open, words that escape, refusals before any work."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from quide import latency
from quide.cli import plot
from quide.cli.probe import Probe
from quide.stats import Hits


@pytest.fixture
def found() -> Probe:
    correct = np.zeros((3, 200), dtype=bool)
    for row, right in enumerate((190, 188, 40)):
        correct[row, :right] = True
    intervals = [Hits(row).interval() for row in correct]
    table = pd.DataFrame(
        {
            "bits": [32, 8, 4], "compression": [1.0, 4.0, 8.0], "accuracy": correct.mean(1),
            "latency_ms": [1.0, 1.1, 1.1],
            "index": [0.95, 3.5, 1.5], "gated_index": [0.05, 0.18, 0.0],
            "accuracy_low": [each.low for each in intervals], "accuracy_high": [each.high for each in intervals],
            "knee_probability": [0.0, 1.0, 0.0],
        }
    )  # fmt: skip
    one = latency.Latency(1.0, 0.9, 1.1, 0.8, 10, 1)
    timings = latency.Timings({"32": one, "8": one, "4": one}, 1.0, 0.0, 0.0, 0.0, ("busy <script>alert(1)</script>",))
    return Probe(table, 200, correct, 4, 0.05, 0.9, 512, timings)


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_a_picture_is_written(found, tmp_path, ending, start):
    plot.draw(found, file := tmp_path / f"sweep.{ending}")
    assert file.read_bytes().startswith(start) and file.stat().st_size > 5000


def test_a_page_stands_alone_and_escapes_what_it_is_told(found, tmp_path):
    plot.draw(found, file := tmp_path / "sweep.html")
    text = file.read_text()
    HTMLParser().feed(text)
    assert "<script" not in text and "&lt;script&gt;" in text
    assert not re.search(r"(src|href)=\"https?://", text) and "Use 8 bits" in text and "<svg" in text
    assert "accuracy (%) 94.0" in text  # the picture in words


@pytest.mark.parametrize(("name", "error"), [("sweep.gif", ValueError), ("absent/sweep.png", FileNotFoundError)])
def test_what_cannot_be_written_is_refused_at_once(found, tmp_path, name, error):
    with pytest.raises(error, match="--plot|plot must"):
        plot.check(tmp_path / name)
