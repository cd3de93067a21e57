"""What a chat endpoint answered -> a label, or the reason why it is none. Nothing is guessed.

A label is the answer itself or stands in JSON, `{"label": …, "confidence": …}`. How sure the model is comes from the
probabilities of the label's tokens where the endpoint gives them, else from the JSON, else it is assumed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from doctune.inference.stages import StageAnswer, no_answer
from doctune.labels import Labels

_SHOWN_CHARS = 60
_LABEL_KEY = re.compile(r'"label"\s*:\s*"')


def read_reply(reply: Any, labels: Labels, assumed_confidence: float) -> StageAnswer:
    """The answer in the body of a chat completion.

    Args:
        reply: the parsed body.
        labels: those that count; case and spelling must be theirs.
        assumed_confidence: the score where neither tokens nor JSON give one.
    """
    try:
        choice = reply["choices"][0]
        text, end = choice["message"]["content"], choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        return no_answer("answered without choices[0].message.content")
    if end not in (None, "stop"):
        return no_answer(f"its answer did not end by itself (finish_reason {end!r})")
    if not isinstance(text, str):
        return no_answer("answered without text")
    said = text.strip()
    if said in labels.names:
        return _with_score(said, said, choice, None, assumed_confidence)
    if said.startswith("{"):
        return _read_json(said, choice, labels, assumed_confidence)
    return no_answer(f"answered {_short(said)}, which is no label")


def _read_json(said: str, choice: Any, labels: Labels, assumed_confidence: float) -> StageAnswer:
    try:
        answer = json.loads(said)
    except ValueError:
        return no_answer(f"answered {_short(said)}, which is neither a label nor JSON")
    if not isinstance(answer, Mapping) or not {"label"} <= set(answer) <= {"label", "confidence"}:
        return no_answer(f"answered {_short(said)}, which is JSON with other keys than label and confidence")
    label, confidence = answer["label"], answer.get("confidence")
    if label not in labels.names:
        return no_answer(f"answered {_short(label)}, which is no label")
    if confidence is not None and not _is_share(confidence):
        return no_answer(f"answered a confidence of {_short(confidence)}, which is not between 0 and 1")
    return _with_score(label, said, choice, confidence, assumed_confidence)


def _with_score(label: str, said: str, choice: Any, confidence: float | None, assumed_confidence: float) -> StageAnswer:
    of_tokens = _token_probability(label, said, choice)
    found = [each for each in (of_tokens, confidence, assumed_confidence) if each is not None]
    return StageAnswer(label, float(found[0]))


def _token_probability(label: str, said: str, choice: Any) -> float | None:
    """The product of the probabilities of the tokens that spell the label; None where they are not given."""
    tokens = _tokens(choice)
    spelt = "".join(token for token, _ in tokens)
    begin = spelt.find(said)
    if not tokens or begin < 0:
        return None
    if said != label:
        key = _LABEL_KEY.search(said)
        if key is None or not said.startswith(label, key.end()):
            return None  # escaped in JSON, so that its characters are not those of the label
        begin += key.end()
    total, place = 0.0, 0
    for token, logprob in tokens:
        if place < begin + len(label) and place + len(token) > begin:
            total += logprob
        place += len(token)
    return math.exp(total)


def _tokens(choice: Any) -> list[tuple[str, float]]:
    """Tokens with their log probabilities; none where any is not what OpenAI's format has."""
    try:
        tokens = [(each["token"], each["logprob"]) for each in choice["logprobs"]["content"]]
    except (KeyError, TypeError):
        return []
    are_valid = all(isinstance(token, str) and _is_number(value) and value <= 0 for token, value in tokens)
    return tokens if are_valid else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _short(value: Any) -> str:
    """A value as a reason shows it: on one line, the beginning of a long one."""
    shown = value if isinstance(value, str) else json.dumps(value)
    return repr(shown if len(shown) <= _SHOWN_CHARS else shown[: _SHOWN_CHARS - 1] + "…")
