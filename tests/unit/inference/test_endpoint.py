"""The HTTP stage against a stand-in endpoint that is slow, wrong, malformed, rate-limited and down."""

import errno
import json
import logging
import math
import os
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from doctune.errors import ConfigError
from doctune.inference.endpoint import ChatEndpoint, EndpointSettings
from doctune.inference.stages import StageAnswer
from doctune.labels import Labels

LABELS = Labels(("a", "b"))
FAST = {"backoff_s": 0.01, "timeout_s": 5.0, "retries": 0}


def endpoint(stand_in, **settings):
    return ChatEndpoint(EndpointSettings(stand_in.url, "m", **(FAST | settings)), LABELS)


def test_answers_are_in_the_order_of_the_texts(stand_in, completion):
    def behave(text, number):
        time.sleep(0.02 if text == "a" else 0)
        return completion(text)

    texts = ["a", "b", "b", "a", "b", "a"] * 5
    answers = endpoint(stand_in(behave)).predict(texts)
    assert [answer.label for answer in answers] == texts


def test_the_request_is_what_chat_endpoints_expect(stand_in, completion, monkeypatch):
    monkeypatch.setenv("THE_KEY", "sk-secret\n")
    server = stand_in(lambda text, number: completion("a"))
    endpoint(server, key_variable="THE_KEY", max_chars=3, body={"seed": 1, "temperature": None}).predict(["{labels}"])
    ((path, headers, body),) = server.requests
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer sk-secret"
    assert (body["model"], body["max_tokens"], body["logprobs"], body["seed"]) == ("m", 100, True, 1)
    assert "temperature" not in body
    (message,) = body["messages"]
    assert "labels:\na\nb\n" in message["content"]
    assert "<document>\n{la\n</document>" in message["content"]  # cut, and no place of the template


def test_without_a_key_none_is_sent(stand_in, completion):
    server = stand_in(lambda text, number: completion("a"))
    endpoint(server, logprobs=False).predict(["x"])
    assert "Authorization" not in server.requests[0][1]
    assert "logprobs" not in server.requests[0][2]


@pytest.mark.parametrize(
    ("url", "sent_to"),
    [
        ("https://host/v1", "https://host/v1/chat/completions"),
        ("https://host/v1/", "https://host/v1/chat/completions"),
        ("https://host/v1/chat/completions", "https://host/v1/chat/completions"),
        ("https://host/d?api-version=1", "https://host/d/chat/completions?api-version=1"),
    ],
)
def test_the_url_of_the_api_or_of_its_completions_will_do(url, sent_to):
    assert EndpointSettings(url, "m").chat_url() == sent_to


def test_texts_that_are_no_valid_unicode_are_sent(stand_in, completion):
    server = stand_in(lambda text, number: completion("a"))
    assert endpoint(server).predict(["\ud800 ü"])[0].label == "a"


def test_scores_come_from_the_probabilities_of_tokens(stand_in, completion):
    tokens = {"content": [{"token": "a", "logprob": math.log(0.25)}]}
    server = stand_in(lambda text, number: completion("a", logprobs=tokens))
    assert endpoint(server).predict(["x"])[0].score == pytest.approx(0.25)


def test_a_slow_endpoint_is_a_reason(stand_in, completion):
    def behave(text, number):
        time.sleep(0.6 if text == "slow" else 0)
        return completion("a")

    answers = endpoint(stand_in(behave), timeout_s=0.25).predict(["slow", "quick"])
    assert [(answer.label, answer.reason) for answer in answers] == [(None, "timed out after 0.25 s"), ("a", "")]


def test_an_endpoint_that_answers_drop_by_drop_times_out(stand_in):
    def drops():
        for _ in range(100):
            time.sleep(0.05)
            yield " "

    began = time.monotonic()
    answer = endpoint(stand_in(lambda text, number: (200, {}, drops())), timeout_s=0.3).predict(["x"])[0]
    assert answer.reason == "timed out after 0.3 s"
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((200, {}, "<html>"), "answered with something that is not JSON"),
        ((200, {}, "\udcff".encode("utf-8", "surrogatepass").decode("latin-1")), "answered with something that is not"),
        ((200, {}, "{}"), "answered without choices[0].message.content"),
        ((404, {}, "nothing here"), "answered HTTP 404 Not Found"),
        ((400, {}, '{"error": {"message": "no\\nsuch  model"}}'), "answered HTTP 400 Bad Request: no such model"),
        ((503, {}, '{"error": "down"}'), "answered HTTP 503 Service Unavailable"),
        ((529, {}, ""), "answered HTTP 529"),
        ((302, {"Location": "http://127.0.0.1:1/"}, ""), "answered HTTP 302 Found"),
        ((200, {"Content-Length": "100"}, '{"choices"'), "answered with something that is not JSON"),
    ],
    ids=["html", "bytes", "no choices", "404", "400", "503", "529", "redirect", "cut off"],
)
def test_a_broken_answer_is_a_reason(stand_in, answer, reason):
    found = endpoint(stand_in(lambda text, number: answer)).predict(["x"])[0]
    assert found.label is None
    assert found.reason.startswith(reason)


def test_an_endless_answer_is_not_read_to_its_end(stand_in, monkeypatch):
    monkeypatch.setattr("doctune.inference.endpoint._MAX_REPLY_BYTES", 1024**2)
    server = stand_in(lambda text, number: (200, {}, ("x" * 2**16 for _ in range(100))))
    assert endpoint(server).predict(["x"])[0].reason == "could not be reached: its answer is longer than 1 MB"


def test_a_wrong_answer_is_a_reason_and_no_failure(stand_in, completion):
    server = stand_in(lambda text, number: completion("foo"))
    answers = endpoint(server, retries=3, max_failures=2).predict(["x"] * 10)
    assert {answer.reason for answer in answers} == {"answered 'foo', which is no label"}
    assert len(server.requests) == 10


def test_what_passes_is_tried_again(stand_in, completion):
    server = stand_in(lambda text, number: completion("b") if number == 3 else (500, {}, ""))
    assert endpoint(server, retries=2).predict(["x"]) == [StageAnswer("b", 0.5)]
    assert len(server.requests) == 3


def test_the_reason_says_how_often_it_was_tried(stand_in):
    server = stand_in(lambda text, number: (500, {}, ""))
    reason = endpoint(server, retries=2).predict(["x"])[0].reason
    assert reason == "answered HTTP 500 Internal Server Error (3 attempts)"


def test_what_does_not_pass_is_not_tried_again(stand_in):
    server = stand_in(lambda text, number: (401, {}, ""))
    assert endpoint(server, retries=5).predict(["x"])[0].reason == "answered HTTP 401 Unauthorized"
    assert len(server.requests) == 1


def test_waits_grow(stand_in):
    server = stand_in(lambda text, number: (500, {}, ""))
    endpoint(server, retries=2, backoff_s=0.2).predict(["x"])
    first, second = (after - before for before, after in zip(server.begun, server.begun[1:], strict=False))
    assert first >= 0.1  # half of 0.2 at least
    assert second >= 0.2  # half of 0.4


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_honoured_for_all_requests(stand_in, completion, as_date):
    def behave(text, number):
        if number > 1:
            return completion("a")
        moment = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        return 429, {"Retry-After": moment if as_date else "1"}, ""

    server = stand_in(behave)
    answers = endpoint(server, retries=1, concurrency=1).predict(["x", "y"])
    assert [answer.label for answer in answers] == ["a", "a"]
    assert server.begun[1] - server.begun[0] >= 0.9


def test_an_endpoint_that_asks_for_too_long_a_wait_is_not_waited_for(stand_in):
    server = stand_in(lambda text, number: (429, {"Retry-After": "3600"}, ""))
    reason = endpoint(server, retries=3, max_wait_s=5).predict(["x"])[0].reason
    assert reason == "answered HTTP 429 Too Many Requests (asked to wait 3600 s)"
    assert len(server.requests) == 1


@pytest.mark.parametrize("value", ["soon", "nan", "-5", "Wed, 99 Foo"])
def test_an_odd_retry_after_asks_for_nothing(stand_in, completion, value):
    server = stand_in(lambda text, number: completion("a") if number > 1 else (429, {"Retry-After": value}, ""))
    assert endpoint(server, retries=1).predict(["x"])[0].label == "a"


def test_requests_are_spaced_by_the_rate_limit(stand_in, completion):
    server = stand_in(lambda text, number: completion("a"))
    endpoint(server, requests_per_minute=600).predict(["x"] * 4)
    assert server.begun[-1] - server.begun[0] >= 0.25  # 3 gaps of 0.1 s, less what sending varies


def test_no_more_requests_at_once_than_allowed(stand_in, completion):
    def behave(text, number):
        time.sleep(0.05)
        return completion("a")

    server = stand_in(behave)
    endpoint(server, concurrency=2).predict(["x"] * 8)
    assert server.most_at_once == 2


def test_an_endpoint_that_is_down_is_left_alone_after_some_failures(stand_in):
    server = stand_in(None)
    server_settings = {"concurrency": 1, "max_failures": 2, "pause_s": 60.0}
    stage = endpoint(server, **server_settings)
    server.stop()
    reasons = [answer.reason for answer in stage.predict(["x"] * 4)]
    refused = f"could not be reached: {os.strerror(errno.ECONNREFUSED)}"
    alone = f"left alone for 60 s after 2 failures in a row, the last: {refused}"
    assert reasons == [refused, refused, alone, alone]


def test_it_is_asked_again_after_the_pause_and_then_one_failure_is_enough(stand_in, completion):
    is_up = False

    def behave(text, number):
        return completion("a") if is_up else (404, {}, "")

    server = stand_in(behave)
    stage = endpoint(server, concurrency=1, max_failures=2, pause_s=0.2)
    stage.predict(["x"] * 4)
    assert len(server.requests) == 2
    time.sleep(0.25)
    stage.predict(["x"] * 4)
    assert len(server.requests) == 3
    time.sleep(0.25)
    is_up = True
    assert [answer.label for answer in stage.predict(["x"] * 3)] == ["a"] * 3
    assert len(server.requests) == 6


def test_an_interrupt_ends_all_waiting(stand_in):
    server = stand_in(lambda text, number: (500, {}, ""))
    stage = endpoint(server, retries=5, backoff_s=60.0, max_wait_s=60.0, max_failures=100)
    main = threading.main_thread().ident
    threading.Timer(0.5, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        stage.predict(["x"] * 40)
    assert time.monotonic() - began < 20
    assert len(server.requests) == 4


def test_a_key_is_in_no_reason_record_or_log(stand_in, monkeypatch, caplog):
    monkeypatch.setenv("THE_KEY", "sk-secret")
    caplog.set_level(logging.DEBUG)
    said = json.dumps({"error": {"message": "Incorrect API key provided: sk-secret."}})
    settings = EndpointSettings(stand_in(lambda text, number: (401, {}, said)).url, "m", key_variable="THE_KEY")
    reason = ChatEndpoint(settings, LABELS).predict(["x"])[0].reason
    assert reason == "answered HTTP 401 Unauthorized: Incorrect API key provided: [key]."
    assert "sk-secret" not in repr(settings) + caplog.text


def test_a_missing_key_is_said_before_anything_is_sent(monkeypatch):
    monkeypatch.delenv("THE_KEY", raising=False)
    with pytest.raises(ConfigError) as caught:
        ChatEndpoint(EndpointSettings("https://host/v1", "m", key_variable="THE_KEY"), LABELS)
    assert str(caught.value) == (
        "The endpoint's key should be in the environment variable THE_KEY, which is not set: export THE_KEY=…, or "
        "leave key_variable out for an endpoint that needs none."
    )


@pytest.mark.parametrize("key", ["two words", "sk-\nx", "schlüssel"])
def test_an_odd_key_is_refused_without_repeating_it(monkeypatch, key):
    monkeypatch.setenv("THE_KEY", key)
    with pytest.raises(ConfigError) as caught:
        ChatEndpoint(EndpointSettings("https://host/v1", "m", key_variable="THE_KEY"), LABELS)
    assert str(caught.value) == (
        "What the environment variable THE_KEY holds is no key: it has blanks or odd characters."
    )


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"url": "host/v1"},
            "url=host/v1 must begin with https:// or http:// and name a host, such as https://host/v1.",
        ),
        ({"url": "http://[x"}, "url is none: Invalid IPv6 URL."),
        (
            {"url": "https://me:pw@host/v1"},
            "url must hold no key or password: put it into an environment variable, and",
        ),
        ({"url": "https://host/v1?api-key=x"}, "url must hold no key or password: put it into an environment variable"),
        ({"model": ""}, "model must be text."),
        (
            {"key_variable": "sk-secret"},
            "key_variable must be the name of an environment variable, never the key itself.",
        ),
        ({"prompt": "{text}"}, "prompt must have the place {labels}."),
        ({"prompt": "{labels}"}, "prompt must have the place {text}."),
        ({"timeout_s": 0}, "timeout_s=0 must be larger than 0."),
        ({"requests_per_minute": -1}, "requests_per_minute=-1 must be larger than 0."),
        ({"backoff_s": -1}, "backoff_s=-1 must not be negative."),
        ({"pause_s": "x"}, "pause_s=x must not be negative."),
        ({"retries": -1}, "retries=-1 must be a whole number from 0."),
        ({"concurrency": 1.5}, "concurrency=1.5 must be a whole number from 1."),
        ({"max_chars": 0}, "max_chars=0 must be a whole number from 1."),
        ({"assumed_confidence": 2}, "assumed_confidence=2 must be between 0 and 1."),
        ({"logprobs": 1}, "logprobs must be true or false."),
        ({"body": [1]}, 'body must be an object, such as {"seed": 1}.'),
    ],
)
def test_settings_that_cannot_be_used_are_refused_in_a_sentence(settings, sentence):
    with pytest.raises(ConfigError) as caught:
        EndpointSettings(**({"url": "https://host/v1", "model": "m"} | settings))
    assert str(caught.value).startswith(f"The endpoint cannot be asked: {sentence}")
    assert "pw" not in str(caught.value)
    assert "sk-secret" not in str(caught.value)
