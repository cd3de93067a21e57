"""What the paragraph on methods says of a run with several targets, where that differs from other tasks.

Each function gives one sentence or more, or nothing where the run did not record what it needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from doctune.reports.numbers import counted, decimal
from doctune.reports.phrases import listed
from doctune.reports.verdict import PART_WORDS
from doctune.scoring.multilabel import MIN_POSITIVES

Report = Mapping[str, Any]
Group = Mapping[str, Any]  # of the configuration, such as `loss`; empty where it is not known

VECTORS = {
    "mean": "the mean of the last hidden states of its tokens",
    "cls": "the last hidden state of its first token",
}
POSITIVE_WEIGHTS = {
    "balanced": "each label weighted, where it applies, by the training texts without it over those with it",
    "effective": (
        "each label weighted, where it applies, by the effective number of training texts without it over that of "
        "those with it (Cui et al. 2019)"
    ),
}


def heads(report: Report, data: Group) -> str:
    """What the heads read and which labels they tell."""
    vector = VECTORS.get(str(data.get("vector")))
    read = f" All heads read the same vector of a text, {vector} (Caruana 1997)." if vector else ""
    told = [f"{name} ({_labels(found)})" for name, found in report["targets"].items()]
    return f"The {counted(len(told), 'target was', 'targets were')} {listed(told)}.{read}"


def _labels(found: Mapping[str, Any]) -> str:
    number = counted(len(found["labels"]), "label")
    return f"{number}, any number per text" if found["kind"] == "multi" else f"{number}, one per text"


def losses(report: Report, loss: Group, class_weights: Mapping[str, str]) -> str:
    """What is minimised of each kind of target, and how the losses become one.

    Args:
        report: what `build_report` gives.
        loss: the configuration's group.
        class_weights: the words of `loss.class_weights` for targets with one label per text.
    """
    if not loss:
        return ""
    kinds = {found["kind"] for found in report["targets"].values()}
    weights = str(loss.get("class_weights"))
    of_kind = []
    if "single" in kinds:
        smoothing = loss.get("label_smoothing")
        smoothed = f"label smoothing of {smoothing:g} (Szegedy et al. 2016)" if smoothing else ""
        details = [words for words in (class_weights.get(weights, ""), smoothed) if words]
        beside = f", with {' and '.join(details)}" if details else ""
        of_kind.append(f"of targets with one label per text it was {_name(loss, 'cross entropy')}{beside}")
    if "multi" in kinds:
        beside = f", {POSITIVE_WEIGHTS[weights]}" if weights in POSITIVE_WEIGHTS else ""
        name = _name(loss, "binary cross entropy")
        of_kind.append(f"of targets with any number of labels it was the mean over the labels of {name}{beside}")
    return (
        "The loss of each target was the mean over the texts that know it: "
        f"{'; '.join(of_kind)}. {_balance(report, loss)}"
    )


def _name(loss: Group, plain: str) -> str:
    if loss.get("name") != "focal":
        return f"the {plain}"
    return f"the focal loss with a gamma of {loss['gamma']:g} (Lin et al. 2017)"


def _balance(report: Report, loss: Group) -> str:
    weights = {name: found["weight"] for name, found in report["targets"].items() if found["weight"] is not None}
    if loss.get("balance") == "uncertainty":
        ended = f", which ended at {_weights(weights)}" if weights else ""
        return (
            "They were added up with weights learnt from the homoscedastic uncertainty of each target (Kendall, Gal & "
            f"Cipolla 2018){ended}."
        )
    if set(weights.values()) <= {1.0}:
        return "They were added up."
    return f"They were added up with the fixed weights {_weights(weights)}."


def _weights(weights: Mapping[str, float]) -> str:
    return listed([f"{weight:.3g} ({name})" for name, weight in weights.items()])


def thresholds(report: Report) -> str:
    """From when on a label of a set was said; nothing without targets that have sets of labels."""
    multi = [found for found in report["targets"].values() if found["kind"] == "multi"]
    if not any(row["threshold"] is not None for found in multi for row in found["per_label"]):
        return ""
    return (
        "A label of a target with any number of them was said where its probability reached a threshold, chosen on "
        f"validation texts for the best F1 of the label; labels with fewer than {MIN_POSITIVES} such texts shared the "
        "threshold with the best macro F1."
    )


def scores(report: Report) -> str:
    """The mean macro F1 and that of each target, with intervals."""
    part = report["part"]
    together = report[part]
    chose = ", which had also chosen the epoch and the thresholds" if part == "val" else ""
    low, high = together["ci95"]["f1_macro"]
    each = [
        f"{decimal(found[part]['f1_macro'])} ({decimal(found[part]['ci95']['f1_macro'][0])} to "
        f"{decimal(found[part]['ci95']['f1_macro'][1])}) for {name}"
        for name, found in report["targets"].items()
        if found[part]
    ]
    texts = counted(together["texts"], f"{PART_WORDS[part]} text")
    return (
        f"On the {texts}{chose}, macro F1 was {decimal(together['f1_macro'])} on average over the targets (95 % "
        f"percentile bootstrap interval over texts {decimal(low)} to {decimal(high)}; Efron 1979): {listed(each)}."
    )


def baselines(report: Report, words: Mapping[str, str]) -> str:
    """What the baselines of each target scored on the same texts; `words` are their descriptions by name."""
    part = report["part"]
    by_baseline: dict[str, list[str]] = {}
    for target, found in report["targets"].items():
        for name, parts in found["baselines"].items():
            if parts.get(part):
                scored = f"{decimal(parts[part]['f1_macro'])} for {target}"
                by_baseline.setdefault(name, []).append(scored)
    if not by_baseline:
        return ""
    told = [f"{words.get(name, name)} scored {listed(scored)}" for name, scored in by_baseline.items()]
    return f"On the same texts {'; '.join(told)}."
