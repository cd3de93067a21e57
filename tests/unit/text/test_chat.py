import pytest

from doctune.text.chat import Message, PlainTemplate, Rendered, TemplateRefusedError, render

ASKED = (Message("user", "Is it late?"), Message("assistant", "Very."))
LONGER = (Message("system", "Be brief."), *ASKED, Message("user", "How late?"), Message("assistant", "Twelve."))
PLAIN = PlainTemplate("<s>", "</s>")


def learnt(rendered):
    return [rendered.text[start:stop] for start, stop in rendered.spans]


def test_the_plain_template_is_the_documented_one():
    assert PLAIN(ASKED, for_answer=False) == "<s>### User:\nIs it late?\n\n### Assistant:\nVery.</s>"
    assert PLAIN(ASKED[:1], for_answer=True) == "<s>### User:\nIs it late?\n\n### Assistant:\n"


def test_every_turn_of_the_assistant_is_learnt_with_its_end_and_nothing_else():
    (rendered,) = render(LONGER, PLAIN)
    assert rendered.text == (
        "<s>### System:\nBe brief.\n\n### User:\nIs it late?\n\n### Assistant:\nVery.</s>\n\n"
        "### User:\nHow late?\n\n### Assistant:\nTwelve.</s>"
    )
    assert learnt(rendered) == ["Very.</s>", "Twelve.</s>"]


def counted(messages, *, for_answer):
    """A template that writes how many turns there are before all of them."""
    return f"{len(messages)}:" + "|".join(each.content for each in messages) + ("|" if for_answer else "")


def test_where_later_turns_change_earlier_ones_each_answer_has_a_text_of_its_own():
    def moving(messages, *, for_answer):
        asked = sum(each.role == "user" for each in messages)
        return f"{asked}:" + "|".join(each.content for each in messages) + ("|" if for_answer else "")

    first, second = render(LONGER[1:], moving)
    assert first == Rendered("1:Is it late?|Very.", ((14, 19),))
    assert (second.text, learnt(second)) == ("2:Is it late?|Very.|How late?|Twelve.", ["Twelve."])


def test_a_template_that_asks_for_answers_otherwise_than_it_shows_them_is_read_without_the_asking():
    def thinking(messages, *, for_answer):
        return "".join(f"<{each.content}>" for each in messages) + ("<think>" if for_answer else "")

    (rendered,) = render(ASKED, thinking)
    assert learnt(rendered) == ["<Very.>"]


def test_a_template_without_a_place_for_an_answer_is_refused():
    with pytest.raises(TemplateRefusedError) as caught:
        render(ASKED, counted)
    assert str(caught.value) == "the chat template does not show an answer after what it shows of its prompt"
