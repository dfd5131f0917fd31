"""Every source: its frames in order with their times, and what becomes of those that stall, end, or are damaged."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.live_video import Picture
from adapters.video import VideoError
from compressors.errors import InputError, VidpressError
from experiments.streaming.sources import Source, SourceError, source_from
from experiments.streaming.sources.base import Timeline
from experiments.streaming.sources.camera import CameraSource
from experiments.streaming.sources.file import FileSource
from experiments.streaming.sources.folder import FolderSource
from experiments.streaming.sources.standard_input import StandardInputSource
from experiments.streaming.sources.url import Reconnection, UrlSource, without_password
from tests.adapters.moving import FPS, http, listening, number_of, write, write_image
from tests.conf.composing import composed

AT_ONCE = Reconnection(attempts=2, delay=0.0)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("sources") / "clip.mp4")


class Collected:
    """What a source gave, until it ended."""

    def __init__(self, source: Source, most: int = 10_000) -> None:
        self.numbers: list[int | None] = []
        self.times: list[float] = []
        self.notices: list[str] = []
        self.error: VidpressError | None = None
        stop = threading.Event()
        pictures = source.pictures(stop, self.notices.append)
        try:
            for picture in pictures:
                if isinstance(picture, Picture):
                    self.numbers.append(number_of(picture.image()))
                    self.times.append(picture.time)
                else:
                    self.numbers.append(None)
                if len(self.numbers) == most:
                    stop.set()
                    break
        except VidpressError as error:
            self.error = error


def test_a_file_once_and_over_and_over(clip: Path) -> None:
    once = Collected(FileSource(clip, paced=False))
    assert once.numbers == list(range(40))
    assert once.times == pytest.approx([i / FPS for i in range(40)], abs=2e-3)
    thrice = Collected(FileSource(clip, paced=False, loop=True), most=100)
    assert thrice.numbers == [i % 40 for i in range(100)]
    assert thrice.times == pytest.approx([i / FPS for i in range(100)], abs=1e-2), "the times go on"


def test_a_file_that_was_cut_off_is_told_after_its_last_frame(tmp_path: Path) -> None:
    cut = tmp_path / "cut.mp4"
    write(cut, options={"movflags": "faststart"})  # the index first, as in a download that broke off
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 2 // 3])
    found = Collected(FileSource(cut, paced=False))
    assert found.numbers[:10] == list(range(10))
    assert isinstance(found.error, SourceError)
    assert (found.error.reason, "of 40 frames only" in str(found.error)) == ("cut_off", True)


def test_a_file_is_looked_at_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="no such file"):
        FileSource(tmp_path / "none.mp4", paced=False).check()


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_folder_in_the_order_of_its_numbers(tmp_path: Path, suffix: str) -> None:
    for number in (0, 1, 2, 10, 11):
        write_image(tmp_path / f"f{number}.{suffix}", number)
    (tmp_path / "notes.txt").write_text("left alone")
    source = FolderSource(tmp_path, rate=4.0, paced=False)
    source.check()
    found = Collected(source)
    assert found.numbers == [0, 1, 2, 10, 11]
    assert found.times == [0, 0.25, 0.5, 0.75, 1.0]
    assert Collected(FolderSource(tmp_path, rate=4.0, paced=False, loop=True), most=7).times[-1] == 1.5
    (tmp_path / f"f1.{suffix}").write_bytes(b"nothing")
    (tmp_path / f"f2.{suffix}").write_bytes((tmp_path / f"f2.{suffix}").read_bytes()[:60])
    damaged = Collected(source)
    assert damaged.numbers == [0, None, None, 10, 11]
    assert damaged.times == [0, 0.75, 1.0], "a broken frame has its moment all the same"


def test_a_folder_is_looked_at_before_anything_starts(tmp_path: Path, clip: Path) -> None:
    for path, reason in ((tmp_path, "no picture"), (tmp_path / "none", "no such folder"), (clip, "source=file")):
        with pytest.raises(SourceError, match=reason):
            FolderSource(path, rate=1.0, paced=False).check()


def test_a_device_through_ffmpegs_device_formats() -> None:
    camera = CameraSource("testsrc=size=64x48:rate=10:duration=1", format="lavfi", options={}, timeout=5)
    camera.check()
    found = Collected(camera)
    assert found.times == pytest.approx([i / 10 for i in range(10)])
    assert isinstance(found.error, SourceError)
    assert found.error.reason == "lost", "a camera has no end"
    with pytest.raises(SourceError, match=r"/dev/video99: no such device\. Cameras here: "):
        CameraSource("/dev/video99", format="v4l2", options={}, timeout=5).check()


def url(address: str, **settings: Any) -> UrlSource:
    given: dict[str, Any] = {"open_timeout": 5.0, "read_timeout": 0.3, "reconnection": AT_ONCE, **settings}
    source = UrlSource(f"http://user:secret@{address}/clip", options={}, **given)
    source.check()
    return source


def test_a_url_of_a_file_ends_at_its_end(clip: Path) -> None:
    data = clip.read_bytes()
    with listening(lambda connection, _: http(connection, data, length=len(data))) as address:
        found = Collected(url(address))
    assert (found.numbers, found.error, found.notices) == (list(range(40)), None, [])


def test_a_file_that_breaks_off_on_the_way_goes_on_where_it_was(tmp_path: Path) -> None:
    data = write(tmp_path / "clip.mkv").read_bytes()

    def serve(connection: socket.socket, number: int) -> None:
        http(connection, data[: len(data) // 2] if number == 0 else data, length=len(data))

    with listening(serve) as address:
        source = url(address)
        found = Collected(source)
    assert found.error is None
    assert found.numbers == list(range(40)), "nothing twice, nothing missing"
    assert (source.reconnections, len(found.notices)) == (1, 1)
    assert "attempt 1 of 2" in found.notices[0]
    assert "secret" not in found.notices[0] + source.title


@pytest.mark.parametrize("stalls", [False, True])
def test_a_live_stream_is_connected_again_and_its_times_go_on(tmp_path: Path, stalls: bool) -> None:
    # More than FFmpeg reads to learn what it is; over a connection it announces no length.
    data = write(tmp_path / "live.ts", 120).read_bytes()

    def serve(connection: socket.socket, number: int) -> None:
        if number == 0:
            http(connection, data, close=not stalls)
        elif number == 1:
            connection.close()
        elif number == 2:
            http(connection, data)
        else:
            connection.close()

    with listening(serve) as address:
        source = url(address)
        found = Collected(source)
    assert [number for number in found.numbers if number is not None] == [*range(40)] * 6
    assert found.times == sorted(found.times)
    assert found.times[120] - found.times[119] >= (0.05 if stalls else 0.0), "by the clock on the wall"
    assert isinstance(found.error, SourceError)
    assert found.error.reason == "lost"
    assert [text.rpartition("; ")[2] for text in found.notices] == [
        "attempt 1 of 2 in 0 s",
        "attempt 2 of 2 in 0 s",
        "attempt 1 of 2 in 0 s",
        "attempt 2 of 2 in 0 s",
    ]
    assert ("nothing came for 0.3 s" in found.notices[0]) == stalls


def test_waiting_doubles_up_to_the_longest() -> None:
    policy = Reconnection(attempts=9, delay=1.0, longest=5.0)
    assert [policy.wait(attempt) for attempt in (1, 2, 3, 4, 1000)] == [1, 2, 4, 5, 5]


def test_a_url_that_nobody_serves_is_lost() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    found = Collected(url(address, reconnection=Reconnection(attempts=0)))
    assert "Connection refused" in str(found.error)
    with pytest.raises(SourceError, match="source=file"):
        UrlSource("a.mp4", options={}, open_timeout=1, read_timeout=1, reconnection=AT_ONCE).check()
    assert without_password("rtsp://me:secret@host:554/a?b=c") == "rtsp://host:554/a?b=c"
    with pytest.raises(SourceError, match=r"source\.url cannot be read"):
        without_password("rtsp://[bad/x")


def piped(send: Callable[[int], None], timeout: float = 5.0) -> Collected:
    """What standard input gives when `send` writes into it."""
    ours, theirs = os.pipe()
    sender = threading.Thread(target=send, args=(theirs,))
    sender.start()
    source = StandardInputSource(format=None, timeout=timeout, paced=False, descriptor=ours)
    source.check()
    try:
        return Collected(source)
    finally:
        sender.join()
        os.close(ours)


def test_standard_input(tmp_path: Path) -> None:
    data = write(tmp_path / "clip.mkv").read_bytes()

    def send(content: bytes, descriptor: int, close: bool = True) -> None:
        while content:
            content = content[os.write(descriptor, content) :]
        if close:
            os.close(descriptor)

    assert piped(lambda descriptor: send(data, descriptor)).numbers == list(range(40))
    stalled = piped(lambda descriptor: send(data[: len(data) // 2], descriptor, close=False), timeout=0.2)
    assert isinstance(stalled.error, SourceError)
    assert (stalled.error.reason, len(stalled.numbers) > 5) == ("stalled", True)
    nothing = piped(os.close)
    assert isinstance(nothing.error, SourceError)
    assert (nothing.error.reason, "nothing came" in str(nothing.error)) == ("missing", True)
    long = write(tmp_path / "long.mp4", 400)
    unseekable = piped(lambda descriptor: send(long.read_bytes(), descriptor))
    assert "use -f matroska" in str(unseekable.error), "an mp4 has its index at its end"


def test_a_terminal_is_no_video() -> None:
    ours, theirs = os.openpty()
    try:
        with pytest.raises(SourceError, match="reads a video from a pipe"):
            StandardInputSource(format=None, timeout=1, paced=False, descriptor=theirs).check()
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_clock_that_jumps_back_does_not_make_time_fall(clip: Path) -> None:
    class Jumping:
        name, rate = "jumping", 10.0

        def pictures(self) -> list[Picture | None]:
            return [Picture(time, None) for time in (5.0, 5.1, 0.0, 0.1)]  # type: ignore[arg-type]

    notices: list[str] = []
    placed = list(Timeline().along(Jumping(), notices.append))  # type: ignore[arg-type]
    assert [picture.time for picture in placed if isinstance(picture, Picture)] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert notices == ["jumping: its clock jumped back; the stream's goes on from 0.20 s"]


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["source=file"], "source.path is not set"),
        (["source=url"], "needs an address"),
        (["source=none"], "task=stream needs one of clip, file, folder"),
        (["source=clip", "source.pace=slow"], r"source.pace=slow: write own \| fast"),
        (["source=folder", "source.path=.", "source.rate=0"], "source.rate=0 must be a number"),
        (["source=camera", "source.timeout=never"], "source.timeout=never must be a number"),
        (["source=url", "source.url=rtsp://a", "source.attempts=1.5"], "source.attempts=1.5 must be a whole number"),
    ],
)
def test_settings_that_cannot_be(overrides: list[str], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        source_from(composed("task=stream", *overrides))


@pytest.mark.parametrize("name", ["clip", "file", "folder", "camera", "url", "stdin"])
def test_every_choice_builds(name: str) -> None:
    given = {"file": ["source.path=a.mp4"], "folder": ["source.path=frames"], "url": ["source.url=rtsp://a/b"]}
    source = source_from(composed("task=stream", f"source={name}", *given.get(name, [])))
    assert (source.paced, source.live) == (name == "file", name in ("camera", "url"))
