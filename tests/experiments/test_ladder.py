"""Measurements of the ladder: what is asked for is what is quantized, and what is computed is what is recorded."""

from __future__ import annotations

import pytest
import torch

from quide import ptq
from quide.data import embedded
from quide.experiments import inputs, ladder, schema
from quide.experiments.compute import ladder as computing
from quide.experiments.runs import Case
from quide.ptq.width import Width

CASE = Case("simplecnn", "cifar10", 0, "smoke")


@pytest.fixture
def few(monkeypatch):
    """Embedded images stand in for the data sets, a few of them, and few steps for the techniques."""
    pool = embedded.load("cifar10", "calibration")
    monkeypatch.setattr(inputs, "training_images", lambda case: pool.subset(slice(0, 128)))
    monkeypatch.setattr(computing, "CALIBRATION_SIZE", 64)
    monkeypatch.setattr(computing.datasets, "load", lambda name, split: embedded.load(name, "calibration"))
    for kind in (ptq.AdaRound, ptq.Brecq):
        monkeypatch.setattr(kind, "__init__", _short(kind.__init__))
    return pool


def _short(made):
    def start(self, *arguments, **options):
        made(self, *arguments, **({"iterations": 3} | options))

    return start


def test_each_rung_adds_to_one_that_there_is():
    for rung in ladder.RUNGS.values():
        assert rung.below == "" or rung.below in ladder.RUNGS
        assert rung.widths == (ladder.WIDTHS if not rung.epochs else rung.widths[: len(rung.epochs)])
    assert [rung.below for rung in ladder.LADDER].count("") == 1


@pytest.mark.parametrize("rung", ["the paper's", "AdaRound", "BRECQ", "equalization, biases absorbed", "LSQ"])
def test_a_record_of_a_rung(few, rung):
    values = computing.ladder(CASE, rung)
    schema.check("ladder", values)
    details = ladder.ladder(CASE, rung).spec.details
    assert set(values["accuracy"]) == {"32", *details["bits"]} and set(values["seconds"]) == set(details["bits"])
    assert values["images"] == 200
    assert bool(values["checks"]["w4a4"]) == (rung in ("AdaRound", "BRECQ"))


def test_the_image_and_the_last_layer_have_widths_of_their_own(few):
    model, images = inputs.network(CASE), inputs.calibration_images(CASE, 64)
    first, *_, last = ptq.quantizable_layers(model)
    by = {
        name: computing._rounded(CASE, ladder.RUNGS[name], model, images, Width(4, 4)).meta["quide"].keep
        for name in ("least squares", "image at 8 bits", "LSQ")
    }
    assert by == {"least squares": {}, "image at 8 bits": {first: Width(4, 8)}, "LSQ": {first: 8, last: 8}}


def test_training_images_come_in_the_order_of_seed_and_epoch(few):
    batches = computing.Augmented(few.subset(slice(0, 128)), CASE)
    first, again = (next(iter(batches))[0] for _ in range(2))
    batches.set_epoch(1)
    assert torch.equal(first, again) and not torch.equal(first, next(iter(batches))[0])
    assert first.shape[1:] == (3, 32, 32) and len(batches) == 1


def test_calibration_sets_are_drawn_anew(few, monkeypatch):
    monkeypatch.setattr(computing, "SIZES", (2, 4))
    monkeypatch.setattr(computing, "DRAWS", 2)
    monkeypatch.setattr(computing, "STRANGE_IMAGES", 8)
    values = computing.calibration_draws(CASE, "image at 8 bits", "w4a4")
    schema.check("calibration_draws", values)
    assert set(values["accuracy"]) == {f"{name}, {draw}" for name in ("2", "4", *ladder.STRANGE) for draw in range(2)}


def test_a_rung_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="rung must be one of the paper's"):
        ladder.ladder(CASE, "top")
