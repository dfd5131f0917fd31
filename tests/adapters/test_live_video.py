"""Video as it comes: files, connections, devices and pipes; what is broken, stalls or ends is told apart."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from adapters.live_video import LiveInput, Picture, Pipe, StalledError
from adapters.video import RateSampler, VideoError
from tests.adapters.moving import FPS, HEIGHT, WIDTH, damaged, http, image, listening, number_of, write


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("live") / "clip.mkv")


def test_every_frame_of_a_file_with_its_time(clip: Path) -> None:
    with closing(LiveInput(str(clip), name="clip")) as video:
        assert (video.rate, video.duration) == (FPS, pytest.approx(4.0))
        pictures = list(video.pictures())
    assert [number_of(picture.image()) for picture in pictures if picture] == list(range(40))
    assert [picture.time for picture in pictures if picture] == pytest.approx([i / FPS for i in range(40)], abs=2e-3)


def test_broken_frames_are_told_apart_and_the_rest_is_whole(clip: Path, tmp_path: Path) -> None:
    path = damaged(clip, tmp_path / "damaged.mkv", {14, 29, 39})  # the last of their groups: no other needs them
    with closing(LiveInput(str(path), name="damaged")) as video:
        found = list(video.pictures())
    shown = [number_of(picture.image()) if picture else None for picture in found]
    assert shown == [None if number in (14, 29, 39) else number for number in range(40)]


def test_a_picture_is_scaled_and_turned() -> None:
    frame = av.VideoFrame.from_ndarray(image(7), format="rgb24")
    picture = Picture(0.0, frame)
    assert picture.size == (HEIGHT, WIDTH)
    assert np.array_equal(picture.image(), image(7))
    small = picture.image((HEIGHT // 2, WIDTH // 2))
    assert small.shape == (HEIGHT // 2, WIDTH // 2, 3)
    assert number_of(small) == 7


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoError, match=r"that: cannot be opened as a video \(Invalid data"):
        LiveInput(str(tmp_path / "text.mp4"), name="that")
    with pytest.raises(VideoError, match="No such file"):
        LiveInput(str(tmp_path / "none.mp4"), name="that")
    sound = tmp_path / "sound.wav"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sample = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sample.sample_rate, sample.time_base = 8000, Fraction(1, 8000)
        container.mux(stream.encode(sample))
    with pytest.raises(VideoError, match="no video stream"):
        LiveInput(str(sound), name="that")


def test_a_server_that_does_not_answer_or_stops_sending_has_stalled(clip: Path) -> None:
    data = clip.read_bytes()
    with listening(lambda connection, _: None) as address, pytest.raises(StalledError, match=r"no video within 0\.3 s"):
        LiveInput(f"http://{address}/a.mkv", name="silent", open_timeout=0.3)

    def half(connection: socket.socket, _: int) -> None:
        http(connection, data[: len(data) // 2], close=False)

    with listening(half) as address:
        with closing(LiveInput(f"http://{address}/a.mkv", name="half", open_timeout=5, read_timeout=0.3)) as video:
            seen = []
            with pytest.raises(StalledError, match=r"half: nothing came for 0\.3 s"):
                seen.extend(video.pictures())
            shown = [number_of(picture.image()) for picture in seen if picture]
        assert shown == list(range(len(shown)))
        assert 5 < len(shown) < 40


def test_a_pipe_ends_at_its_end_when_it_stalls_and_when_it_is_told_to(clip: Path) -> None:
    data = clip.read_bytes()

    def piped(content: bytes, *, close: bool, timeout: float | None, stop: threading.Event) -> tuple[Pipe, int]:
        ours, theirs = os.pipe()

        def send() -> None:
            os.write(theirs, content)  # little enough for the pipe's buffer
            if close:
                os.close(theirs)

        send()
        pipe = Pipe(ours, timeout, stop)
        try:
            with closing(LiveInput(pipe, name="pipe")) as video:
                count = sum(1 for picture in video.pictures() if picture)
        finally:
            os.close(ours)
            if not close:
                os.close(theirs)
        return pipe, count

    assert len(data) < 65536
    pipe, count = piped(data, close=True, timeout=5, stop=threading.Event())
    assert (count, pipe.stalled, pipe.received) == (40, False, len(data))
    pipe, count = piped(data[: len(data) // 2], close=False, timeout=0.2, stop=threading.Event())
    assert pipe.stalled
    assert 5 < count < 40
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    pipe, _ = piped(data[: len(data) // 2], close=False, timeout=None, stop=stop)
    assert not pipe.stalled


def test_sampling_takes_the_first_frame_of_every_interval() -> None:
    def taken(fps: float | None, times: list[float]) -> list[float]:
        sampler = RateSampler(fps, FPS)
        return [time for time in times if sampler.takes(time)]

    times = [i / FPS for i in range(20)]
    assert taken(None, times) == times
    assert taken(2, times) == [0.0, 0.5, 1.0, 1.5]
    assert taken(2, [0.0, 0.1, 3.3, 3.4, 3.5]) == [0.0, 3.3, 3.5], "what passed meanwhile is not made up for"
    assert taken(100, times) == times, "none twice"
