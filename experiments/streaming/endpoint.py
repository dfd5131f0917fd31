"""Questions and answers over HTTP and WebSocket, on this machine unless told otherwise (extra: serve)."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from adapters.errors import LoadError
from compressors.errors import InputError, VidpressError
from experiments.streaming.questions import Question, Refused, question_from

if TYPE_CHECKING:
    from aiohttp import web

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_BEHIND = 256  # messages that a WebSocket's reader may be behind before it is cut off
_CLOSING = 2.0  # seconds for open connections at the end

Ask = Callable[[Question], "Future[dict[str, Any]]"]


class Endpoint:
    """Serves, on a thread of its own, for as long as the context is open:

    - `POST /ask` with `{"question": …}`: waits for the answer's record;
    - `GET /status`: the state;
    - `GET /ws`: a WebSocket that gets every answer and notice, and the state now and then, and takes questions.

    Everything is JSON; what is wrong is answered with 4xx or 5xx and `{"error": reason}`. Requests that a web page of
    another origin makes are refused: there is no password, and the port of one's own machine is open to every page.

    Args:
        ask: takes a question; its future gets the answer's record, or a `VidpressError`.
        status: the state, as JSON.
        host, port: where to listen; port 0 takes a free one.
        body_limit: bytes of a request's body or a WebSocket message.
        timeout: seconds that a request waits for its answer.
        every: seconds between states sent to WebSockets.

    Attributes:
        url: where it listens, once the context is open.

    Raises:
        LoadError: the extra `serve` is not installed.
        InputError: the port cannot be had.
    """

    def __init__(
        self,
        ask: Ask,
        status: Callable[[], Mapping[str, Any]],
        *,
        host: str,
        port: int,
        body_limit: int,
        timeout: float,
        every: float,
    ) -> None:
        _require_aiohttp()
        self._ask, self._status = ask, status
        self._host, self._port, self._body_limit, self._timeout = host, port, body_limit, timeout
        self._sockets: dict[asyncio.Queue[str | None], web.WebSocketResponse] = {}
        self._every, self._next = every, 0.0
        self._ready: Future[int] = Future()
        self._over = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, name="vidpress-endpoint", daemon=True)
        self.url = ""

    def __enter__(self) -> Endpoint:
        self._thread.start()
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"http://{host}:{self._ready.result()}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def show(self, status: Mapping[str, Any]) -> None:
        """Send the state, if it is time to."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self._every
            self._push("status", status)

    def say(self, answer: Mapping[str, Any]) -> None:
        """Send an answer's record."""
        self._push("answer", answer)

    def notice(self, text: str) -> None:
        """Send what the user should know."""
        self._push("notice", {"text": text})

    def _push(self, kind: str, content: Mapping[str, Any]) -> None:
        """Send a message to every WebSocket; from any thread, while the context is open."""
        self._loop.call_soon_threadsafe(self._deliver, _text({"type": kind, **content}))

    def _deliver(self, message: str | None) -> None:
        for outgoing, socket in list(self._sockets.items()):
            try:
                outgoing.put_nowait(message)
            except asyncio.QueueFull:  # one that does not read must not fill the memory
                del self._sockets[outgoing]
                self._loop.create_task(socket.close(code=1013, message=b"too far behind"))

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _serve(self) -> None:
        from aiohttp import web

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guarded(request, handler)

        self._loop = asyncio.get_running_loop()
        app = web.Application(middlewares=[guard], client_max_size=self._body_limit)
        app.router.add_post("/ask", self._asked)
        app.router.add_get("/status", self._told)
        app.router.add_get("/ws", self._connected)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_CLOSING)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError as error:
            await runner.cleanup()
            where = f"serve.host={self._host} serve.port={self._port}"
            raise InputError(
                f"{where}: cannot listen there ({error.strerror}); serve.port=0 takes a free port."
            ) from error
        self._ready.set_result(runner.addresses[0][1])
        await self._over.wait()
        self._deliver(None)
        await runner.cleanup()

    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Errors as JSON; and nothing for pages of other origins, nor for names that were made to point here."""
        from aiohttp import web

        origin = request.headers.get("Origin")
        try:
            own, theirs = urlsplit(f"//{request.host}").hostname, urlsplit(origin or "").netloc
        except ValueError as error:
            return _refusal(400, f"Host or Origin: {error}")
        try:
            if self._host in LOOPBACK and own not in LOOPBACK:
                return _refusal(403, f"this endpoint answers to {', '.join(LOOPBACK)}, not to {own}")
            if origin is not None and theirs != request.host:
                return _refusal(403, f"pages of {origin} may not use this endpoint")
            return await handler(request)
        except web.HTTPRequestEntityTooLarge:
            return _refusal(413, f"a body has at most {self._body_limit} bytes")
        except web.HTTPException as error:
            return _refusal(error.status, f"{error.reason}: there are POST /ask, GET /status and GET /ws")

    async def _asked(self, request: web.Request) -> web.StreamResponse:
        if request.content_type != "application/json":
            return _refusal(415, "send JSON, with Content-Type: application/json")
        try:
            question = _question(await request.text(), "http")
            answered = self._ask(question)
        except (InputError, UnicodeDecodeError, LookupError) as error:
            return _refusal(400, str(error))
        except Refused as error:
            return _refusal(503, str(error))
        try:
            # What nobody waits for any more is not asked.
            record = await asyncio.wait_for(asyncio.wrap_future(answered), self._timeout)
        except TimeoutError:
            return _refusal(504, f"no answer within {self._timeout:g} s")
        except VidpressError as error:
            return _refusal(503, str(error))
        except Exception:  # told where the stream runs
            return _refusal(500, "the stream failed while it answered")
        return _reply(422 if record["error"] else 200, record)

    async def _told(self, request: web.Request) -> web.StreamResponse:
        return _reply(200, self._status())

    async def _connected(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import WSMsgType, web

        socket = web.WebSocketResponse(heartbeat=20, max_msg_size=self._body_limit)
        await socket.prepare(request)
        outgoing: asyncio.Queue[str | None] = asyncio.Queue(_BEHIND)
        outgoing.put_nowait(_text({"type": "status", **self._status()}))
        self._sockets[outgoing] = socket
        sender = asyncio.create_task(_send(socket, outgoing))
        try:
            async for message in socket:
                try:
                    if message.type is not WSMsgType.TEXT:
                        raise InputError("send text")
                    self._ask(_question(message.data, "websocket"))  # answers go to all
                except VidpressError as error:
                    await outgoing.put(_text({"type": "error", "error": str(error)}))
        finally:
            self._sockets.pop(outgoing, None)
            sender.cancel()
        return socket


async def _send(socket: web.WebSocketResponse, outgoing: asyncio.Queue[str | None]) -> None:
    while (message := await outgoing.get()) is not None:
        await socket.send_str(message)
    await socket.close()


def _question(text: str, origin: str) -> Question:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}") from error
    return question_from(content, "ask", origin, timed=False)


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False)


def _reply(status: int, content: Mapping[str, Any]) -> web.Response:
    from aiohttp import web

    return web.json_response(content, status=status, dumps=_text)


def _refusal(status: int, reason: str) -> web.Response:
    return _reply(status, {"error": reason})


def _require_aiohttp() -> None:
    try:
        import aiohttp  # noqa: F401
    except ImportError as error:
        raise LoadError("serve.port= needs aiohttp: pip install 'vidpress[serve]'") from error
