"""Profiles: sizes of each experiment, the largest being the paper's protocol."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quide import latency
from quide.experiments.profiles import PROFILES, profile
from quide.models import train


def test_each_is_found_by_its_name_and_can_be_a_record_s():
    assert tuple(PROFILES) == ("smoke", "quick", "short", "paper")
    assert all(profile(name).name == name for name in PROFILES)


def test_the_paper_profile_is_the_paper_protocol_on_the_full_data():
    paper = profile("paper")
    assert (paper.warmup, paper.passes) == (100, 1000) == (latency.WARMUP, latency.PASSES)
    assert paper.test_images is None and not paper.embedded
    assert paper.epochs is None


def test_the_short_profile_differs_from_the_paper_s_in_epochs_and_timed_passes_alone():
    short, paper = profile("short"), profile("paper")
    assert 0 < short.epochs < train.RESNET18.epochs
    assert 0 < short.passes < paper.passes and 0 < short.warmup < paper.warmup
    protocol = {"name": "paper", "epochs": None, "passes": paper.passes, "warmup": paper.warmup}
    assert replace(short, **protocol) == paper


def test_smaller_profiles_do_less_and_need_no_download():
    smoke, quick, paper = map(profile, ("smoke", "quick", "paper"))
    assert smoke.passes < quick.passes < paper.passes
    assert smoke.warmup < quick.warmup < paper.warmup
    assert smoke.wait_s <= quick.wait_s <= paper.wait_s
    assert smoke.timed_images < quick.timed_images == paper.timed_images == latency.BATCH_SIZE
    assert smoke.embedded and quick.embedded
    assert smoke.test_images is not None


@pytest.mark.parametrize("name", ["full", "", "PAPER", None])
def test_an_unknown_profile_is_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match="^profile must be one of smoke, quick, short, paper, got"):
        profile(name)
