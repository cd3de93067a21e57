"""What a reader costs where it is used."""

from pathlib import Path

import pytest

from doctune.inference.profile import MIN_QUESTIONS, profile_reader


def test_too_few_questions_say_nothing():
    assert profile_reader(Path("nowhere"), [("Who?", "Anna.")] * (MIN_QUESTIONS - 1)) is None


def test_percentiles_rise_and_throughput_is_their_inverse(known_reader):
    found = profile_reader(known_reader / "model", [("Who?", "Anna lives in Rome.")] * MIN_QUESTIONS)
    latency = found["latency_ms"]
    assert found["questions"] == MIN_QUESTIONS
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"]
    assert found["questions_per_s"] == pytest.approx(1000 / latency["p50"], rel=0.9)
    assert found["memory_mb"] > 50
