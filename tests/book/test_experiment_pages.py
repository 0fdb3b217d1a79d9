"""The pages of EXP-1 and EXP-2, cell by cell: every template finds its facts, with the records there are and without.

The committed records hold ResNet-18 by the short schedule alone, so that the short ones are among them.
"""

from __future__ import annotations

import json

import pytest
from quidebook import report

from quide.experiments import campaign


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("page", ["exp1_simplecnn", "exp2_resnet18", "exp2_imagenet"])
def test_every_cell_runs_and_no_number_is_unknown(page, recorded, checkout, said, tmp_path, monkeypatch):
    if not recorded:
        monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path))
    monkeypatch.setattr(campaign, "measure", lambda cases, device: [])  # the other pages run nothing by default
    shown = []
    for name in ("table", "folded"):
        monkeypatch.setattr(report, name, lambda frame, *words: shown.append(frame))
    monkeypatch.setattr(report, "show", lambda figure, name, caption, alt: said.append(f"{caption} {alt}"))
    monkeypatch.setattr(report, "provenance", lambda records, *commands: said.append(f"{len(list(records))} records"))
    names = {}
    for cell in json.loads((checkout / "notebooks" / f"{page}.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    cells = [str(cell) for frame in shown for cell in frame.to_numpy().ravel()]
    assert not [text for text in (*said, *cells) if "nan" in text.split()]
    assert (said[-1] == "0 records") != recorded
    assert any("There is no record of" in text for text in said) != recorded
