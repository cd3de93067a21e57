"""What `doctune serve` takes and gives, as its OpenAPI page shows it; what is said of a request that does not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

_SHOWN_PROBLEMS = 3
# What each address takes; said after what is wrong with a request.
EXPECTED = {
    "/predict": (
        'Send JSON such as {"text": "…"} or {"texts": ["…", "…"]}; "top_k" (a number from 1) and "probabilities" '
        "(true or false) are optional."
    ),
    "/predict_file": (
        "Send multipart/form-data with one or several fields named files, such as curl -F files=@report.pdf; top_k "
        "(a number from 1) and probabilities (true or false) are optional."
    ),
    "/ask": (
        'Send JSON such as {"question": "…", "text": "…"} or {"question": "…", "texts": ["…", "…"]}; "top_k" (a number '
        'from 1) and "threshold" (a probability) are optional.'
    ),
}


def _readable(text: str) -> str:
    if not text.strip():
        raise ValueError("there is no text in it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("it holds half of a surrogate pair, which is no character") from error
    return text


Text = Annotated[str, AfterValidator(_readable)]
TopK = Annotated[int, Field(ge=1)]


class _TextsRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    text: Text | None = Field(None, description="one text; this or `texts`")
    texts: list[Text] | None = Field(None, min_length=1, description="several texts; this or `text`")

    @model_validator(mode="after")
    def _is_one_of_both(self) -> _TextsRequest:
        if (self.text is None) == (self.texts is None):
            raise ValueError("give either text or texts" + (", not both" if self.text is not None else ""))
        return self

    def all_texts(self) -> tuple[str, ...]:
        """The texts, in order."""
        return (self.text,) if self.text is not None else tuple(self.texts or ())


class PredictRequest(_TextsRequest):
    """Texts to be labelled."""

    top_k: TopK = Field(1, description="the most probable labels to name; beyond 1 they are in `top`")
    probabilities: bool = Field(False, description="whether to give the probability of every label")


class AskRequest(_TextsRequest):
    """A question to texts, which are read as one."""

    question: Text = Field(description="what is asked")
    top_k: TopK = Field(1, description="answers at most, the best first")
    threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="probability below which an answer is not given; null leaves it to the model",
    )


class LabelScore(BaseModel):
    """A label and its probability."""

    label: str
    score: float


class Labelled(LabelScore):
    """The label of a text: `score` is its probability."""

    top: list[LabelScore] | None = Field(None, description="with top_k above 1: so many labels, the best first")
    probabilities: dict[str, float] | None = Field(None, description="where asked for: of every label")


class TargetLabels(BaseModel):
    """What is told of one target of a text."""

    labels: list[LabelScore] = Field(description="those that apply, the most probable first; may be none, see /info")
    top: list[LabelScore] | None = Field(None, description="with top_k above 1: so many labels, the best first")
    probabilities: dict[str, float] | None = Field(None, description="where asked for: of every label")


class Told(BaseModel):
    """What a model with several targets tells of a text, by target."""

    targets: dict[str, TargetLabels]


class Predictions(BaseModel):
    """One prediction per text, in the order of the texts."""

    predictions: list[Labelled | Told]


class LabelledFile(BaseModel):
    """The label of a file, or why there is none."""

    file: str = Field(description="its name, as it was sent")
    status: str = Field(description='"ok" where there is text; else what is wrong, in a word')
    reason: str = Field(description="what is wrong, or what was left out, in a sentence")
    label: str | None = None
    score: float | None = None
    top: list[LabelScore] | None = None
    probabilities: dict[str, float] | None = None
    targets: dict[str, TargetLabels] | None = Field(None, description="of a model with several targets, by target")


class FilePredictions(BaseModel):
    """One row per file, in the order of the files."""

    predictions: list[LabelledFile]


class FoundAnswer(BaseModel):
    """A passage that answers the question: the characters of a text from `start` up to `end`."""

    text: str
    score: float = Field(description="its probability among all candidates")
    start: int
    end: int
    sentence: str = Field(description="the one around it")
    sentence_start: int
    index: int = Field(description="the text it stands in, counted from 0")


class Answers(BaseModel):
    """The answers to a question, the best first; none where there is none."""

    answers: list[FoundAnswer]


class Health(BaseModel):
    """That requests are answered."""

    status: str = "ok"


class Limits(BaseModel):
    """What a request may be."""

    max_body_bytes: int
    max_texts: int = Field(description="texts or files of a request")
    max_chars: int = Field(description="characters of a text, or of all texts of a question")
    max_requests: int = Field(description="requests under way; any more are refused with 503")


class TargetInfo(BaseModel):
    """A target of a model that tells several."""

    name: str
    kind: str = Field(description='"single": one label per text; "multi": any number of them')
    labels: list[str] = Field(description="in id order")


class Info(BaseModel):
    """What is served."""

    task: str
    labels: list[str] = Field(description="in id order; none for a reader and for several targets")
    targets: list[TargetInfo] = Field([], description="of a model that tells several, in the order of its heads")
    max_length: int = Field(description="tokens of a window")
    backend: str
    temperature: float = Field(description="divides the logits before they become probabilities")
    doctune_version: str
    limits: Limits


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


def is_no_json(problems: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the body could not be parsed at all."""
    return any(problem["type"] == "json_invalid" for problem in problems)


def refusal(path: str, problems: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong with a request, from pydantic's list of problems, and what is expected at this path."""
    named = list(dict.fromkeys(_in_words(problem) for problem in problems))
    further = len(named) - _SHOWN_PROBLEMS
    shown = "; ".join(named[:_SHOWN_PROBLEMS]) + (f"; and {further} more" if further > 0 else "")
    return f"The request cannot be used: {shown}. {EXPECTED.get(path, '')}".rstrip()


def _in_words(problem: Mapping[str, Any]) -> str:
    kind, place = problem["type"], ".".join(str(part) for part in problem["loc"][1:])
    if kind == "json_invalid":
        return f"the body is not JSON ({problem['ctx']['error']} at character {place})"
    if kind == "missing":
        return f"{place} is missing" if place else "it has no body"
    if kind == "extra_forbidden":
        return f"{place} is not a key that is known here"
    if kind in ("model_attributes_type", "dict_type", "model_type"):
        return "the body is not a JSON object with Content-Type: application/json"
    message = str(problem["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    return f"{place}: {message}" if place else message
