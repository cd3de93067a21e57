"""Exact match and token F1 of SQuAD, to the last digit those of the official evaluation scripts.

P. Rajpurkar, J. Zhang, K. Lopyrev, P. Liang, "SQuAD: 100,000+ Questions for Machine Comprehension of Text", EMNLP 2016
(version 1.1); P. Rajpurkar, R. Jia, P. Liang, "Know What You Don't Know: Unanswerable Questions for SQuAD", ACL 2018
(version 2.0).

Both versions compare words after the same normalisation and take the best of a question's references. They differ where
one side has no words left:

- 1.1 knows no unanswerable question. Two answers without words are an exact match, yet their F1 is 0, because no word
  is shared. A question without references is an error.
- 2.0 passes over references without words; where none is left, only an answer without words is right. There exact
  match and F1 are both 1 if neither side has words, and 0 if only one has.

Scores are shares, 0 to 1. The scripts give percent; `official_scores` does so in their order of operations, since
100 * (sum / N) is not always 100 * sum / N.

    python -m doctune.scoring.squad dev-v1.1.json predictions.json
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import re
import string
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from doctune.errors import DataError
from doctune.scoring.intervals import LEVEL, RESAMPLES, Interval, bootstrap_mean_interval

Version = Literal["1.1", "2.0"]
Tokens = tuple[str, ...]

EXAMPLE = "python -m doctune.scoring.squad dev-v1.1.json predictions.json"
_FORM = "A SQuAD file is {'data': [{'paragraphs': [{'qas': [{'id': …, 'answers': [{'text': …}]}]}]}]}."
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_LONG_WORD = re.compile(r"[^\W_]{4}")  # no article, no punctuation: a text that has it has words
_REFERENCES_KEPT = 1 << 16  # answers are short, and an evaluation after every epoch meets the same references
_JUDGED_KEPT = 1 << 14  # an evaluation judges an answer when it is found and again when it is written


@dataclass(frozen=True)
class AnswerScores:
    """The scores of each question, in the order of the references; arrays are `(N,)`, scores are shares.

    `has_answer` is False where a question has no reference; `unanswered` ids had no prediction and score 0.
    """

    ids: tuple[str, ...]
    exact_match: NDArray[np.float64]
    f1: NDArray[np.float64]
    has_answer: NDArray[np.bool_]
    unanswered: tuple[str, ...]


@dataclass(frozen=True)
class SquadScores:
    """The means over the questions, as shares; `unanswered` questions had no prediction and count as 0."""

    exact_match: float
    f1: float
    questions: int
    unanswered: int

    def to_dict(self) -> dict[str, float]:
        """Plain values for JSON."""
        return asdict(self)


def normalise_answer(text: str) -> str:
    """Lower case, without ASCII punctuation, without the words a, an and the, single blanks between words.

    Punctuation goes before the articles, so that "a-b" is the word "ab". Punctuation outside ASCII stays.
    """
    return " ".join(_tokens(text))


def exact_match(prediction: str, references: Sequence[str], version: Version = "1.1") -> float:
    """1.0 if the prediction is, normalised, one of the references, else 0.0.

    Raises:
        ValueError: version 1.1 and no reference.
    """
    return float(_judge(prediction, references, version)[0])


def token_f1(prediction: str, references: Sequence[str], version: Version = "1.1") -> float:
    """The harmonic mean of precision and recall of the prediction's words; the best over the references.

    Words count as often as they occur. Two texts without words have F1 0 in version 1.1, and 1 in version 2.0.

    Raises:
        ValueError: version 1.1 and no reference.
    """
    return float(_judge(prediction, references, version)[1])


def exact_match_and_f1(prediction: str, references: Sequence[str], version: Version = "1.1") -> tuple[float, float]:
    """`exact_match` and `token_f1` in the time of one."""
    exact, f1 = _judge(prediction, references, version)
    return float(exact), float(f1)


def score_answers(
    predictions: Mapping[str, str], references: Mapping[str, Sequence[str]], version: Version = "1.1"
) -> AnswerScores:
    """Score every question that has an entry in `references` (id -> its reference answers).

    Predictions for other ids are passed over, as the official scripts do.

    Raises:
        ValueError: version 1.1 and a question without references.
    """
    pairs = _score_pairs(references.items(), predictions, version)
    values = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return AnswerScores(
        ids=tuple(references),
        exact_match=values[:, 0],
        f1=values[:, 1],
        has_answer=np.array([len(texts) > 0 for texts in references.values()], dtype=np.bool_),
        unanswered=tuple(name for name in references if name not in predictions),
    )


def summarise(scores: AnswerScores) -> SquadScores:
    """The means of both scores; they do not depend on the order of the questions.

    Raises:
        ValueError: there is no question.
    """
    if not scores.ids:
        raise ValueError("scores: there is no question.")
    num_questions = len(scores.ids)
    return SquadScores(
        exact_match=math.fsum(scores.exact_match) / num_questions,
        f1=math.fsum(scores.f1) / num_questions,
        questions=num_questions,
        unanswered=len(scores.unanswered),
    )


def bootstrap_intervals(
    scores: AnswerScores, *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> dict[str, Interval]:
    """The percentile intervals of `exact_match` and `f1` over questions, both on the same resamples.

    Questions about one paragraph are drawn as if they were independent; where they are not, the interval is too narrow.

    Raises:
        ValueError: there is no question.
    """
    values = {"exact_match": scores.exact_match, "f1": scores.f1}
    return {
        name: bootstrap_mean_interval(array, seed=seed, resamples=resamples, level=level)
        for name, array in values.items()
    }


def official_scores(
    questions: Sequence[tuple[str, Sequence[str]]], predictions: Mapping[str, str], version: Version
) -> dict[str, float]:
    """What the official script of that version reports, in percent, digit by digit.

    Version 1.1 has `exact_match` and `f1`, version 2.0 `exact`, `f1` and `total` over all questions and, prefixed with
    `HasAns_` and `NoAns_`, over those with and without references; `exact` stands under `exact_match` too, so that
    either version is read alike. The script of 2.0 breaks off where a prediction is missing; here it counts as 0.

    Args:
        questions: (id, references); an id that comes twice counts twice in 1.1 and once, the last one, in 2.0.
        predictions: id -> answer.
        version: whose rules and names.

    Raises:
        ValueError: there is no question, or version 1.1 and a question without references.
    """
    if not questions:
        raise ValueError("questions: there is none.")
    if version == "1.1":
        return _percent_in_order(_score_pairs(questions, predictions, version))
    references = dict(questions)
    pairs = dict(zip(references, _score_pairs(references.items(), predictions, version), strict=True))
    overall = _percent(list(pairs.values()))
    report = {"exact_match": overall["exact"], **overall}
    for prefix, wanted in (("HasAns", True), ("NoAns", False)):
        part = [pair for name, pair in pairs.items() if bool(references[name]) is wanted]
        report |= {f"{prefix}_{key}": value for key, value in _percent(part).items()} if part else {}
    return report


def main(argv: Sequence[str] | None = None) -> int:
    """Print the official JSON for a dataset and a prediction file; a mistake by the caller is exit status 2."""
    args = _parser().parse_args(argv)
    try:
        version, questions = _read_dataset(args.dataset)
        predictions = _read_predictions(args.predictions, [name for name, _ in questions])
    except DataError as error:
        print(f"doctune: {error}", file=sys.stderr)
        return 2
    asked = questions if version == "1.1" else list(dict(questions).items())
    for name, _ in asked:
        if name not in predictions:
            print(f"Unanswered question {name} will receive score 0.", file=sys.stderr)
    report = official_scores(questions, predictions, version)
    print(json.dumps(report, indent=None if version == "1.1" else 2))
    return 0


def _tokens(text: str) -> Tokens:
    return tuple(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


_reference_tokens = functools.lru_cache(maxsize=_REFERENCES_KEPT)(_tokens)


def _score_pairs(
    questions: Iterable[tuple[str, Sequence[str]]], predictions: Mapping[str, str], version: Version
) -> list[tuple[int, float]]:
    """Exact match and F1 of each (id, references); (0, 0) without a prediction."""
    return [
        _judge(predictions[name], texts, version, name) if name in predictions else (0, 0) for name, texts in questions
    ]


def _judge(prediction: str, references: Sequence[str], version: Version, name: str = "") -> tuple[int, float]:
    if version == "1.1" and not references:
        raise ValueError(f"question {name!r} has no reference; only version 2.0 knows unanswerable questions.")
    if prediction in references and _LONG_WORD.search(prediction):
        return 1, 1.0
    return _judged(prediction, tuple(references), version)


@functools.lru_cache(maxsize=_JUDGED_KEPT)
def _judged(prediction: str, references: tuple[str, ...], version: Version) -> tuple[int, float]:
    """Exact match and F1. Where the scripts give a whole number so does this: `sum` treats floats otherwise."""
    predicted = _tokens(prediction)
    truths = {_reference_tokens(text) for text in references}
    if version == "2.0":
        truths.discard(())
        if not truths or not predicted:
            is_right = int(not truths and not predicted)
            return is_right, is_right
    words = set(predicted)
    shares = (_overlap_f1(predicted, truth) for truth in truths if not words.isdisjoint(truth))
    return int(predicted in truths), max(shares, default=0)


def _overlap_f1(predicted: Tokens, truth: Tokens) -> float:
    """F1 of two lists of words as multisets that share some."""
    if predicted == truth:
        return 1.0
    num_same = _num_same(predicted, truth)
    precision, recall = num_same / len(predicted), num_same / len(truth)
    return (2 * precision * recall) / (precision + recall)


def _num_same(predicted: Tokens, truth: Tokens) -> int:
    """How many words they share; counting is slow, and needed only where both repeat one."""
    words, true_words = set(predicted), set(truth)
    if len(words) == len(predicted) or len(true_words) == len(truth):
        return len(words & true_words)
    return (Counter(predicted) & Counter(truth)).total()


def _percent_in_order(pairs: Sequence[tuple[int, float]]) -> dict[str, float]:
    """Version 1.1 adds one by one; from Python 3.12 on, `sum` corrects its rounding and would differ."""
    total_exact, total_f1 = 0, 0.0
    for exact, f1 in pairs:
        total_exact += exact
        total_f1 += f1
    return {"exact_match": 100.0 * total_exact / len(pairs), "f1": 100.0 * total_f1 / len(pairs)}


def _percent(pairs: Sequence[tuple[int, float]]) -> dict[str, float]:
    """Version 2.0 uses `sum`, so that its last digit depends on the Python that runs it; so does this one's."""
    return {
        "exact": 100.0 * sum(exact for exact, _ in pairs) / len(pairs),
        "f1": 100.0 * sum(f1 for _, f1 in pairs) / len(pairs),
        "total": len(pairs),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m doctune.scoring.squad",
        description="Print the official SQuAD scores, in percent, as the evaluation script of the data's version does.",
        epilog=f"example:\n  {EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", type=Path, metavar="DATASET.json", help="SQuAD data, version 1.1 or 2.0")
    parser.add_argument("predictions", type=Path, metavar="PREDICTIONS.json", help="an object: question id -> answer")
    return parser


def _read_dataset(path: Path) -> tuple[Version, list[tuple[str, list[str]]]]:
    """The version and all (id, references) of a SQuAD file, in its order."""
    content = _read_json(path)
    try:
        questions = list(_questions(content))
    except DataError as error:
        raise DataError(f"{path}: {error} {_FORM}") from None
    if not questions:
        raise DataError(f"{path} holds no question.")
    unanswerable = [name for name, references in questions if not references]
    version = _version(content, bool(unanswerable))
    if version == "1.1" and unanswerable:
        raise DataError(
            f"{path} says that it is version 1.1, but question {unanswerable[0]!r} has no answer; only version 2.0 "
            "knows unanswerable questions. Set its 'version' to 'v2.0', or give the question an answer."
        )
    return version, questions


def _version(content: Any, has_unanswerable: bool) -> Version:
    """What the file says; where it names neither version, 2.0 if a question has no answer."""
    stated = str(content.get("version", "")).lower().removeprefix("v")
    if stated == "1.1" or (stated != "2.0" and not has_unanswerable):
        return "1.1"
    return "2.0"


def _questions(content: Any) -> Iterator[tuple[str, list[str]]]:
    """Walk articles, paragraphs and questions; a place that is not as expected is named in the error."""
    for article, at_article in _items(content, "data", "the file"):
        for paragraph, at_paragraph in _items(article, "paragraphs", at_article):
            for question, at_question in _items(paragraph, "qas", at_paragraph):
                name = _member(question, "id", str, at_question)
                answers = _items(question, "answers", at_question)
                yield name, [_member(answer, "text", str, place) for answer, place in answers]


def _items(owner: Any, key: str, place: str) -> Iterator[tuple[Any, str]]:
    """The elements of a list inside `owner`, each with the name of its place."""
    prefix = key if place == "the file" else f"{place}.{key}"
    for number, item in enumerate(_member(owner, key, list, place)):
        yield item, f"{prefix}[{number}]"


def _member(owner: Any, key: str, kind: type, place: str) -> Any:
    if not isinstance(owner, dict):
        raise DataError(f"{place} must be an object, not {_described(owner)}.")
    if key not in owner:
        raise DataError(f"{place} has no {key!r}.")
    if not isinstance(owner[key], kind):
        raise DataError(f"{key!r} of {place} must be {_described(kind())}, not {_described(owner[key])}.")
    return owner[key]


def _described(value: Any) -> str:
    """What JSON calls a value."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    names = {dict: "an object", list: "a list", str: "a text", int: "a number", float: "a number"}
    return names[type(value)]


def _read_predictions(path: Path, asked: Sequence[str]) -> dict[str, str]:
    """The answers to the questions asked; what else the file holds is passed over."""
    content = _read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path} must be an object of question id -> answer text, not {_described(content)}.")
    found = {name: content[name] for name in asked if name in content}
    for name, answer in found.items():
        if not isinstance(answer, str):
            raise DataError(f"{path}: the answer to question {name!r} must be a text, not {_described(answer)}.")
    return found


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not JSON: byte {error.start} is not UTF-8.") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON: {error.msg}, line {error.lineno}, column {error.colno}.") from None
    except RecursionError:
        raise DataError(f"{path} is nested too deeply to be SQuAD data or predictions.") from None


if __name__ == "__main__":
    sys.exit(main())
