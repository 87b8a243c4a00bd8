"""The estimate of a build: its arithmetic, its units, and that no corpus is left out."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from manifests import corpus_names, load_corpus, load_recipe
from pipelines.estimate import FORMATS, PER_CLIP, RATES, RAY, READ_BACK, Cost, Estimate, estimate, table
from pipelines.scan import ScanTask, scan


def cost(form: str, hours: float, clips: int = 0) -> Cost:
    return Cost(corpus="c", split="s", form=form, known="test", clips=clips, hours=hours)


def test_every_corpus_has_a_form_and_every_form_a_rate() -> None:
    assert set(FORMATS) == set(corpus_names())
    assert set(FORMATS.values()) | {"trusted"} == set(RATES)


def test_an_hour_of_audio_takes_the_seconds_of_its_form() -> None:
    assert cost("mp3", 1).cpu_seconds == pytest.approx(RAY * (RATES["mp3"] + READ_BACK))
    assert cost("mp3", 0, clips=1000).cpu_seconds == pytest.approx(RAY * 1000 * PER_CLIP)
    assert cost("mp3", 2, 10).cpu_seconds == pytest.approx(2 * cost("mp3", 1, 5).cpu_seconds)
    # 62 MB an hour.
    assert cost("mp3", 1).bytes_out == pytest.approx(63e6, rel=0.02)


def test_the_whole_is_the_sum_of_its_parts_in_hours() -> None:
    made = Estimate(recipe="r", costs=(cost("flac16", 3600, 7), cost("mp3", 1800, 3), cost("flac16", 400)))
    assert (made.hours, made.clips) == (5800, 10)
    seconds = RAY * (4000 * (RATES["flac16"] + READ_BACK) + 1800 * (RATES["mp3"] + READ_BACK) + 10 * PER_CLIP)
    assert made.cpu_hours == pytest.approx(seconds / 3600)
    assert made.wall_hours(8) == pytest.approx(seconds / 3600 / 8)
    assert made.price(0.05) == pytest.approx(seconds / 3600 * 0.05)
    forms = made.by_form()
    assert list(forms) == ["mp3", "flac16"] and forms["flac16"][0] == 4000
    assert sum(cpu for _, cpu in forms.values()) == pytest.approx(made.cpu_hours)


def test_the_full_recipe_is_priced_from_what_is_published() -> None:
    recipe = load_recipe("salmonn")
    made = estimate(recipe)
    assert {(c.corpus, c.split) for c in made.costs} == set(recipe.sources())
    by_name = {(c.corpus, c.split): c for c in made.costs}
    published = load_corpus("librispeech").split("train-other-500")
    assert by_name["librispeech", "train-other-500"].hours == pytest.approx(published.hours)
    assert by_name["librispeech", "train-other-500"].clips == published.clips
    # Audio that nobody publishes: the hours that the recipe means to have of it.
    assert by_name["millionsong", "full"].known == "the recipe" and by_name["millionsong", "full"].hours == 400
    assert all(c.hours > 0 for c in made.costs)
    assert 10_000 < made.hours < 20_000 and 5 < made.cpu_hours < 30


def test_trust_makes_only_conforming_flac_cheaper() -> None:
    recipe = load_recipe("salmonn")
    for plain, trusted in zip(estimate(recipe).costs, estimate(recipe, trusted=True).costs, strict=True):
        assert (trusted.cpu_seconds < plain.cpu_seconds) == (plain.form == "flac16")
        assert trusted.hours == plain.hours


def test_what_is_scanned_is_counted_and_not_looked_up(tmp_path: Path, corpora: Path) -> None:
    (tmp_path / "raw").symlink_to(corpora)
    recipe = load_recipe("librispeech-100")
    scan(ScanTask(root=str(tmp_path), corpus="librispeech", split="train-clean-100"))
    known = {c.split: (c.known, c.clips, c.hours) for c in estimate(recipe, str(tmp_path)).costs}
    says, clips, hours = known["train-clean-100"]
    assert (says, clips) == ("its manifest", 41) and hours == pytest.approx(0.07, abs=0.01)
    assert known["test-clean"][0] == "published counts"


def test_the_table_shows_the_dearest_first_and_the_sum() -> None:
    made = estimate(load_recipe("salmonn"))
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table(made, price=0.04))
    lines = console.export_text().splitlines()
    dearest = max(made.costs, key=lambda c: c.cpu_seconds)
    assert lines[2].startswith(f"{dearest.corpus}:{dearest.split}")
    total = next(line for line in lines if line.startswith("all "))
    assert f"{made.cpu_hours:.1f} h" in total and f"{made.price(0.04):,.2f}" in total and f"{made.clips:,}" in total
    console.print(table(made))
    assert "cost" in lines[1] and "cost" not in console.export_text().splitlines()[1]
