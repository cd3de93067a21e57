"""A tokenizer learnt from documents, for models that start from nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_CONTINUATION = "##"
# What BERT's pre-tokenizer leaves together: no white space, no ASCII punctuation.
_WORD = re.compile(r"[^\s!-/:-@\[-`{-~]{2,}")


def learn_wordpiece(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    """A cased WordPiece tokenizer with BERT's special tokens at ids 0 to 4 (Devlin et al. 2019).

    Case is kept: in code and data files it tells types apart. A small corpus gives fewer than `vocab_size` tokens. The
    same texts give the same vocabulary.
    """
    learner = _tokenizer(models.WordPiece(unk_token=UNK))
    # The trainer numbers continuation letters in the order of a randomly seeded hash table, and breaks ties between
    # merges by those numbers. Given as special tokens they have numbers before it starts.
    letters = [_CONTINUATION + letter for letter in _continuation_letters(learner, texts)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=[*SPECIAL_TOKENS, *letters], min_frequency=2, show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    tokenizer = _tokenizer(models.WordPiece(learner.get_vocab(), unk_token=UNK))  # where those letters are not special
    tokenizer.add_special_tokens([*SPECIAL_TOKENS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (CLS, SEP)],
    )
    return tokenizer


def _tokenizer(model: models.Model) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _continuation_letters(tokenizer: Tokenizer, texts: Sequence[str]) -> list[str]:
    """The letters that occur inside words, sorted."""
    found: set[str] = set()
    for text in texts:
        for word in {*_WORD.findall(tokenizer.normalizer.normalize_str(text))}:
            found.update(word[1:])
    return sorted(found)
