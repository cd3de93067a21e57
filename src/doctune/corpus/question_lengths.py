"""How long questions and contexts are in tokens, and what that means for windows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from doctune.corpus.question_tokens import QuestionTokens
from doctune.corpus.squad import Question
from doctune.text.questions import WindowSettings, num_cut_questions


def analyse_lengths(
    tokenizer: Tokenizer, questions: Sequence[Question], tokens: QuestionTokens, settings: WindowSettings
) -> dict[str, Any]:
    """Tokens of questions and of contexts (each counted once), windows per question, questions that are cut off."""
    contexts = list(dict.fromkeys(question.context for question in questions))
    texts = [question.text for question in questions]
    windows = Counter(tokens.num_windows().tolist())
    return {
        "question": _lengths(tokenizer, texts),
        "context": _lengths(tokenizer, contexts),
        "windows_per_question": {str(count): windows[count] for count in sorted(windows)},
        "cut_questions": num_cut_questions(tokenizer, texts, settings.max_question_length),
    }


def describe_lengths(found: dict[str, Any], settings: WindowSettings) -> str:
    """The analysis as a sentence or two."""
    windows = found["windows_per_question"]
    single = windows.get("1", 0) / sum(windows.values())
    cut = found["cut_questions"]
    are_cut = "question is cut" if cut == 1 else "questions are cut"
    return (
        f"Tokens: questions {_words(found['question'])}; contexts {_words(found['context'])}. With windows of "
        f"{settings.max_length} that share {settings.doc_stride}, {single:.1%} of the questions take one window, the "
        f"most take {max(map(int, windows))}."
        + (f" {cut:,} {are_cut} after {settings.max_question_length} tokens." if cut else "")
    )


def _lengths(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, int]:
    tokenizer.no_padding()
    tokenizer.no_truncation()
    counts = [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    p50, p95 = np.percentile(counts, [50, 95])
    return {"p50": round(p50), "p95": round(p95), "max": max(counts)}


def _words(lengths: dict[str, int]) -> str:
    return f"{lengths['p50']} (median), 95 % up to {lengths['p95']}, the longest {lengths['max']:,}"
