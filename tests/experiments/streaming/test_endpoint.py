"""The endpoint: answers, the state, pushes, and refusals with reasons."""

from __future__ import annotations

import asyncio
import builtins
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from adapters.errors import LoadError
from compressors.errors import InputError
from experiments.streaming.endpoint import Endpoint
from experiments.streaming.questions import Question, Refused

aiohttp = pytest.importorskip("aiohttp")

STATUS = {"state": "running", "frames": {"seen": 3}}


class Asking:
    """Answers with the question in capitals; some questions have another fate."""

    def __init__(self) -> None:
        self.asked: list[Question] = []
        self.pending: list[Future[dict[str, Any]]] = []

    def __call__(self, question: Question) -> Future[dict[str, Any]]:
        if question.text == "refused":
            raise Refused("too many wait")
        self.asked.append(question)
        future: Future[dict[str, Any]] = Future()
        if question.text == "never":
            self.pending.append(future)
        elif question.text == "over":
            future.set_exception(Refused("the stream ended before this was answered"))
        elif question.text == "fatal":
            future.set_exception(RuntimeError("secret"))
        else:
            error = "cannot" if question.text == "impossible" else None
            future.set_result({"question": question.text, "answer": question.text.upper(), "error": error})
        return future


@pytest.fixture
def asking() -> Asking:
    return Asking()


@pytest.fixture
def endpoint(asking: Asking) -> Iterator[Endpoint]:
    with made(asking) as running:
        yield running


def made(asking: Asking, **settings: Any) -> Endpoint:
    given: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "body_limit": 500, "timeout": 0.3, "every": 0.05}
    return Endpoint(asking, lambda: STATUS, **{**given, **settings})


def talk(endpoint: Endpoint, conversation: Callable[[Any], Any]) -> Any:
    """What a conversation with the endpoint's server gives."""

    async def run() -> Any:
        async with aiohttp.ClientSession(endpoint.url) as client:
            return await conversation(client)

    return asyncio.run(asyncio.wait_for(run(), 20))


def post(endpoint: Endpoint, **request: Any) -> tuple[int, Any]:
    async def conversation(client: Any) -> tuple[int, Any]:
        async with client.post(request.pop("path", "/ask"), **request) as reply:
            return reply.status, await reply.json()

    return talk(endpoint, conversation)


def test_a_question_is_answered(endpoint: Endpoint, asking: Asking) -> None:
    status, answer = post(endpoint, json={"question": " Größe? ", "max_new_tokens": 5})
    assert (status, answer) == (200, {"question": "Größe?", "answer": "GRÖSSE?", "error": None})
    assert asking.asked == [Question("Größe?", None, "http", None, 5)]


def test_the_state(endpoint: Endpoint) -> None:
    async def conversation(client: Any) -> Any:
        async with client.get("/status") as reply:
            return reply.status, await reply.json()

    assert talk(endpoint, conversation) == (200, STATUS)


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("request_", "status", "reason"),
    [
        ({"data": "{", "headers": JSON}, 400, "not JSON"),
        ({"data": b"\xff", "headers": JSON}, 400, "decode"),
        ({"json": []}, 400, "a question is a mapping"),
        ({"json": {}}, 400, "question must be a text"),
        ({"json": {"question": "  "}}, 400, "question must be a text"),
        ({"json": {"question": "a", "at": 3}}, 400, "unknown at; known are max_new_tokens, question"),
        ({"json": {"question": "a", "max_new_tokens": True}}, 400, "max_new_tokens=True must be a whole number"),
        ({"json": {"question": "a", "max_new_tokens": 5000}}, 400, "max_new_tokens=5000 must be a whole number, 1 to"),
        ({"data": r'{"question": "\ud800"}', "headers": JSON}, 400, "half a character"),
        ({"json": {"question": "a"}, "headers": {"Origin": "http://[bad"}}, 400, "Origin"),
        ({"json": {"question": "a" * 600}}, 413, "at most 500 bytes"),
        ({"data": "question=a"}, 415, "Content-Type: application/json"),
        ({"json": {"question": "a"}, "headers": {"Origin": "http://elsewhere.example"}}, 403, "may not use"),
        ({"json": {"question": "a"}, "headers": {"Origin": "null"}}, 403, "may not use"),
        ({"json": {"question": "a"}, "headers": {"Host": "rebound.example"}}, 403, "not to rebound.example"),
        ({"json": {"question": "a"}, "path": "/nowhere"}, 404, "POST /ask, GET /status and GET /ws"),
        ({"json": {"question": "a"}, "path": "/status"}, 405, "POST /ask, GET /status and GET /ws"),
        ({"json": {"question": "refused"}}, 503, "too many wait"),
        ({"json": {"question": "over"}}, 503, "ended before"),
        ({"json": {"question": "never"}}, 504, "no answer within 0.3 s"),
        ({"json": {"question": "impossible"}}, 422, "cannot"),
    ],
)
def test_what_is_wrong_is_said(
    endpoint: Endpoint, asking: Asking, request_: dict[str, Any], status: int, reason: str
) -> None:
    found, body = post(endpoint, **request_)
    assert (found, reason in body["error"]) == (status, True), body
    assert bool(asking.asked) == (status in (422, 504) or "ended" in body["error"])
    assert all(future.cancelled() for future in asking.pending), "what nobody waits for is not asked"


def test_json_too_deep_to_read(asking: Asking) -> None:
    with made(asking, body_limit=200_000) as endpoint:
        status, answer = post(endpoint, data="[" * 100_000, headers=JSON)
    assert status == 400
    assert "not JSON" in answer["error"]


def test_a_failure_inside_gives_no_details_away(endpoint: Endpoint) -> None:
    assert post(endpoint, json={"question": "fatal"}) == (500, {"error": "the stream failed while it answered"})


def test_a_page_of_this_endpoint_may_ask(endpoint: Endpoint) -> None:
    status, _ = post(endpoint, json={"question": "a"}, headers={"Origin": endpoint.url})
    assert status == 200


def test_a_websocket_gets_the_state_answers_and_notices_and_asks(endpoint: Endpoint, asking: Asking) -> None:
    async def conversation(client: Any) -> list[Any]:
        heard = []
        async with client.ws_connect("/ws") as socket:
            heard.append(await socket.receive_json())
            await socket.send_str("no")
            heard.append(await socket.receive_json())
            await socket.send_json({"question": "asked"})
            await socket.send_json({"question": "refused"})
            heard.append(await socket.receive_json())
            endpoint.say({"answer": "told"})
            heard.append(await socket.receive_json())
            endpoint.notice("beware")
            heard.append(await socket.receive_json())
            endpoint.show(STATUS)
            endpoint.show(STATUS)  # too soon
            endpoint.say({"answer": "again"})
            heard += [await socket.receive_json(), await socket.receive_json()]
        return heard

    heard = talk(endpoint, conversation)
    assert [message.pop("type") for message in heard] == [
        "status", "error", "error", "answer", "notice", "status", "answer"
    ]  # fmt: skip
    assert heard[0] == heard[5] == STATUS
    assert "not JSON" in heard[1]["error"]
    assert heard[2] == {"error": "too many wait"}
    assert heard[3:5] == [{"answer": "told"}, {"text": "beware"}]
    assert asking.asked == [Question("asked", None, "websocket")]


def test_a_websocket_hears_the_last_words(asking: Asking) -> None:
    async def listen(url: str, connected: asyncio.Event) -> list[str]:
        async with aiohttp.ClientSession(url) as client, client.ws_connect("/ws") as socket:
            connected.set()
            return [message.json()["type"] async for message in socket]

    async def run() -> list[str]:
        endpoint, connected = made(asking), asyncio.Event()
        endpoint.__enter__()
        listening = asyncio.create_task(listen(endpoint.url, connected))
        await connected.wait()
        endpoint.say({"answer": "the last"})
        await asyncio.to_thread(endpoint.__exit__, None, None, None)
        return await listening

    started = time.monotonic()
    assert asyncio.run(asyncio.wait_for(run(), 20)) == ["status", "answer"]
    assert time.monotonic() - started < 10


def test_one_that_does_not_read_is_cut_off(endpoint: Endpoint) -> None:
    async def conversation(client: Any) -> int | None:
        async with client.ws_connect("/ws") as socket:
            for _ in range(20_000):
                endpoint.say({"answer": "a" * 2000})
            while (message := await socket.receive()).type != aiohttp.WSMsgType.CLOSE:
                if message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
                    break
            return socket.close_code

    assert talk(endpoint, conversation) in (1013, 1006)


def test_a_port_that_is_taken(asking: Asking) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(InputError, match=f"serve.port={port}: cannot listen there .*in use.*serve.port=0"),
            made(asking, port=port),
        ):
            pass


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, asking: Asking) -> None:
    importing = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name == "aiohttp":
            raise ImportError(name)
        return importing(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(LoadError, match=r"pip install 'vidpress\[serve\]'"):
        made(asking)
