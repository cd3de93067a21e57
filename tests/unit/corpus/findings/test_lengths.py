from doctune.corpus.findings.lengths import AuditSettings, TokenCounter, estimated_tokens


def test_tokens_are_estimated_from_word_pieces_marks_and_signs():
    assert estimated_tokens(["", "one two", "international", "a_b(c)", "今日 ok"]) == [0, 2, 3, 6, 3]


def test_the_share_that_a_window_cuts_counts_special_tokens(make_text, prose, audited):
    documents = [make_text(f"/data/{n}", "ab"[n % 2], " ".join(prose(n, n + 8).split())) for n in range(1, 11)]
    counter = TokenCounter("words", lambda texts: [len(text.split()) for text in texts])
    audit = audited(documents, settings=AuditSettings(max_length=16), counter=counter)
    (cut,) = [finding for finding in audit.findings if finding.kind == "cut_documents"]
    assert cut.count == 4  # 15 to 18 words, where 14 fit beside two special tokens
    assert "4 documents are longer than 16 tokens (40%; counted by words)" in cut.message
    assert audit.lengths["tokens"] == {
        "min": 9,
        "p10": 9,
        "p25": 11,
        "p50": 13,
        "p75": 16,
        "p90": 17,
        "p99": 18,
        "max": 18,
    }
    assert (audit.lengths["cut"], audit.lengths["cut_share"]) == (4, 0.4)


def test_a_text_that_reaches_the_bound_of_the_extraction_counts_as_cut(clean, audited):
    documents = clean()
    bound = len(documents[0].text)
    reaching = sum(len(document.text) >= bound for document in documents)
    lengths = audited(documents, settings=AuditSettings(max_chars=bound)).lengths
    assert (lengths["cut"], lengths["at_that_bound"], lengths["read_up_to_chars"]) == (reaching, reaching, bound)
