"""Asking a model over HTTP: against a server that this test starts, which fails in all the ways that servers do."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sae_tutorial.evaluation import chat as module
from sae_tutorial.evaluation.chat import HTTPChat, LocalChat

HELLO = [{"role": "user", "content": "Hello"}]


def completion(text, top=None):
    logprobs = {"content": [{"top_logprobs": [{"token": t, "logprob": p} for t, p in top]}]} if top else None
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}, "logprobs": logprobs}]}, {}


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A chat whose server gives the `replies` in their turn, the last one for ever; `asked` are the questions."""
    replies, asked = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append((self.path, dict(self.headers), body))
            status, reply, headers = replies.pop(0) if len(replies) > 1 else replies[0]
            data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(status)
            for name, value in {"content-length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    slept = []
    monkeypatch.setattr(module.time, "sleep", slept.append)
    chat = HTTPChat(f"http://127.0.0.1:{httpd.server_port}/v1/", "tiny", "secret", folder=tmp_path / "chat")
    yield chat, replies, asked, slept
    httpd.shutdown()
    httpd.server_close()


def test_a_question_and_its_answer(server):
    chat, replies, asked, _ = server
    replies.append(completion("  red "))
    assert chat.answer(HELLO, max_tokens=7) == "red"
    path, headers, body = asked[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret"
    assert (
        body["model"] == "tiny" and body["messages"] == HELLO and body["max_tokens"] == 7 and body["temperature"] == 0
    )
    assert "secret" not in repr(chat)


def test_answers_are_kept_and_belong_to_their_question(server):
    chat, replies, asked, _ = server
    replies += [completion("one"), completion("two")]
    assert [chat.answer(HELLO), chat.answer(HELLO)] == ["one", "one"] and len(asked) == 1
    assert chat.answer([{"role": "user", "content": "Bye"}]) == "two" and len(asked) == 2
    assert not any("secret" in file.read_text() for file in chat.folder.iterdir())


def test_it_asks_again_as_the_server_says(server):
    chat, replies, asked, slept = server
    replies += [(503, b"busy", {}), (429, b"later", {"retry-after": "7"}), (500, b"", {}), completion("there")]
    assert chat.answer(HELLO) == "there" and len(asked) == 4 and slept == [1.0, 7.0, 4.0]


def test_it_gives_up_and_says_so_and_keeps_nothing(server):
    chat, replies, asked, slept = server
    replies.append((503, b"busy", {}))
    with pytest.raises(ConnectionError, match="no answer in 6 attempts .*status 503: busy"):
        chat.answer(HELLO)
    assert len(asked) == 6 and len(slept) == 5 and not chat.folder.exists()


@pytest.mark.parametrize("status, fix", [(401, "OPENAI_API_KEY"), (404, "OPENAI_MODEL"), (400, "refused")])
def test_a_refusal_is_not_asked_again(server, status, fix):
    chat, replies, asked, _ = server
    replies.append((status, b"no", {}))
    with pytest.raises(ConnectionError, match=fix):
        chat.answer(HELLO)
    assert len(asked) == 1


@pytest.mark.parametrize("reply", [b"<html>", {"choices": []}, {"error": "x"}, {"choices": [{"text": "old"}]}])
def test_another_protocol_is_named(server, reply):
    chat, replies, *_ = server
    replies.append((200, reply, {}))
    with pytest.raises(ConnectionError, match="something else than a chat completion"):
        chat.answer(HELLO)


def test_nobody_there(tmp_path, monkeypatch):
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    chat = HTTPChat("http://127.0.0.1:9", "tiny", retries=2, folder=tmp_path)
    with pytest.raises(ConnectionError, match="no answer in 3 attempts .*is the address right"):
        chat.answer(HELLO)


def test_probabilities_of_answers_from_those_of_tokens(server):
    chat, replies, asked, _ = server
    replies.append(completion("Yes", [("Yes", -0.5), (" yes", -2.0), ("No", -1.5), ("Maybe", -3.0)]))
    from math import exp

    yes, no = exp(-0.5) + exp(-2.0), exp(-1.5)
    assert chat.weigh(HELLO, ["Yes", "No"]) == pytest.approx([yes / (yes + no), no / (yes + no)])
    assert asked[0][2]["logprobs"] is True


@pytest.mark.parametrize("text, expected", [("no, it is not", [0, 1]), ("Yes.", [1, 0]), ("Well", [0.5, 0.5])])
def test_where_there_are_no_probabilities_the_text_counts(server, text, expected):
    chat, replies, *_ = server
    replies.append(completion(text))
    assert chat.weigh(HELLO, ["Yes", "No"]) == expected


def test_the_environment_alone_says_where(monkeypatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_MODEL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="OPENAI_BASE_URL and OPENAI_MODEL must be set"):
        HTTPChat.from_environment()
    monkeypatch.setenv("OPENAI_BASE_URL", "http://x/v1")
    monkeypatch.setenv("OPENAI_MODEL", "m")
    assert HTTPChat.from_environment(timeout=3.0) == HTTPChat("http://x/v1", "m", None, timeout=3.0)


@pytest.mark.slow
def test_the_local_model_answers_and_weighs():
    chat = LocalChat()
    france = [{"role": "user", "content": "What is the capital of France? Answer with one word."}]
    assert "Paris" in chat.answer(france, max_tokens=12)
    weights = chat.weigh(france, ["Paris", "London"])
    assert weights[0] > 0.9 and sum(weights) == pytest.approx(1)
