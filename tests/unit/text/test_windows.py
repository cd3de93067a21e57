from doctune.text.vocabulary import SPECIAL_TOKENS, learn_wordpiece
from doctune.text.windows import head_windows

TEXTS = ["alpha beta Gamma { }"] * 3


def test_special_tokens_have_berts_ids():
    tokenizer = learn_wordpiece(TEXTS, 100)
    assert [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2, 3, 4]


def test_case_and_punctuation_are_kept():
    tokenizer = learn_wordpiece(TEXTS, 100)
    assert tokenizer.encode("Gamma gamma {").tokens[1:-1][0] == "Gamma"
    assert "{" in tokenizer.encode("Gamma {").tokens


def test_a_window_has_its_special_tokens_and_never_more_than_asked():
    tokenizer = learn_wordpiece(TEXTS, 100)
    long, short = head_windows(tokenizer, ["alpha " * 50, "alpha"], 6)
    alpha = tokenizer.token_to_id("alpha")
    assert long == [2, alpha, alpha, alpha, alpha, 3]
    assert short == [2, alpha, 3]


def test_a_pair_is_joined_as_bert_does():
    tokenizer = learn_wordpiece(TEXTS, 100)
    encoding = tokenizer.encode("alpha", "beta")
    assert encoding.tokens == ["[CLS]", "alpha", "[SEP]", "beta", "[SEP]"]
    assert encoding.type_ids == [0, 0, 0, 1, 1]


def test_the_same_texts_give_the_same_vocabulary():
    texts = [f"some words{n % 7} with çontinuation 90°C letters{n % 5} and more_{n} of thëm" for n in range(60)]
    first, *others = (learn_wordpiece(texts, 150).get_vocab() for _ in range(6))
    assert all(other == first for other in others)


def test_continuation_letters_are_no_special_tokens():
    tokenizer = learn_wordpiece(["alpha beta"] * 3, 100)
    assert tokenizer.encode("##a").tokens == ["[CLS]", "[UNK]", "[UNK]", "a", "[SEP]"]
