"""Findings about labelled texts: what in the data would mislead a model, or flatter its scores.

Pure functions of documents, their texts and their duplicate groups; nothing here reads or writes files. Each finding is
a sentence that says what was found, why it matters and what to do, with examples.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from doctune.corpus.account import AccountRow
from doctune.corpus.duplicates import DuplicateGroups
from doctune.corpus.findings.classes import class_findings, class_table, left_out_findings
from doctune.corpus.findings.copies import duplicate_findings, label_conflict_findings, leak_findings, split_findings
from doctune.corpus.findings.giveaways import give_away_findings
from doctune.corpus.findings.lengths import (
    ESTIMATE,
    AuditSettings,
    TokenCounter,
    cut_by_window,
    length_findings,
    length_table,
    measure_lengths,
)
from doctune.corpus.findings.record import SEVERITIES, Finding, LabelledText, Severity, SplitRow, printable

SCHEMA = 1


@dataclass(frozen=True)
class Audit:
    """All that was found in one source; `classes` and `lengths` are plain values as `to_dict` gives them.

    `root` is the folder that all documents lie in, "" where there is none; `different` counts near-copies once.
    """

    source: str
    root: str
    rows: int
    documents: int
    different: int
    findings: tuple[Finding, ...]
    classes: dict[str, dict[str, Any]]
    lengths: dict[str, Any]

    def count(self, severity: Severity) -> int:
        """How many findings have a severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The content of the JSON file."""
        totals = {severity: self.count(severity) for severity in SEVERITIES}
        return {"schema": SCHEMA, "totals": totals, **asdict(self)}


def audit_corpus(
    documents: Sequence[LabelledText],
    texts: Sequence[str],
    groups: DuplicateGroups,
    *,
    source: str,
    left_out: Sequence[AccountRow] = (),
    splits: Sequence[SplitRow] = (),
    labels: Collection[str] = (),
    settings: AuditSettings | None = None,
    counter: TokenCounter | None = None,
) -> Audit:
    """Look for everything in one corpus.

    Args:
        documents: the usable documents; their parts are checked for leaks unless `splits` are given.
        texts: their texts in the same order, read one at a time.
        groups: their duplicate groups, from `duplicates.duplicate_groups`.
        source: where they come from, for the reader.
        left_out: the rows that gave no document; see `account.AccountRow`.
        splits: parts from another run, to be checked against these documents.
        labels: labels that should have documents whether or not a row names them, such as class folders.
        settings: what the model will read.
        counter: how tokens are counted; an estimate if None.
    """
    settings, counter = settings or AuditSettings(), counter or ESTIMATE
    num_chars, num_tokens = measure_lengths(texts, counter)
    is_cut = cut_by_window(num_chars, num_tokens, settings)
    classes = class_table(documents, groups, left_out, labels, num_tokens, is_cut)
    findings = [
        *leak_findings(documents, groups, splits),
        *split_findings(documents, splits),
        *label_conflict_findings(documents, groups, left_out),
        *duplicate_findings(documents, groups),
        *give_away_findings(documents, texts, groups),
        *class_findings(classes, left_out),
        *left_out_findings(left_out),
        *length_findings(is_cut, settings, counter),
    ]
    ranked = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
    return Audit(
        printable(source),
        root=printable(_common_folder(documents)),
        rows=len(documents) + len(left_out),
        documents=len(documents),
        different=len(set(groups.near)),
        findings=tuple(ranked),
        classes=classes,
        lengths=length_table(num_chars, num_tokens, is_cut, settings, counter),
    )


def _common_folder(documents: Sequence[LabelledText]) -> str:
    try:
        return os.path.commonpath([os.path.dirname(document.path) for document in documents])
    except ValueError:  # none, on several drives, or relative ones among them
        return ""
