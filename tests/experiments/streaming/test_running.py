"""The two threads and the queue between them: order, counts, questions at their times, and orderly ends."""

from __future__ import annotations

import _thread
import math
import signal
import threading
import time
from typing import Any

import pytest

from adapters.video import VideoError
from experiments.streaming.interrupts import Interrupts
from experiments.streaming.questions import Question, Refused
from experiments.streaming.queue import POLICIES, Frame, FrameQueue
from experiments.streaming.running import Pace, Stream
from experiments.streaming.sources import SourceError
from tests.adapters.moving import image
from tests.experiments.streaming.fakes import Made, Session, Watched


def pace(**settings: Any) -> Pace:
    given: dict[str, Any] = {
        "policy": "block",
        "capacity": 4,
        "slowest": 8,
        "fps": None,
        "seconds": None,
        "broken_limit": 3,
        "chunk": 2,
        "max_new_tokens": 7,
        "stay": False,
        "refresh": 0.02,
        **settings,
    }
    return Pace(**given)


def ran(source: Made, session: Session | None = None, *questions: Question, **settings: Any) -> tuple[Stream, Watched]:
    """A stream that has run to its end; every frame it saw is counted once."""
    stream, watched = Stream(session or Session(), source, questions, pace(**settings)), Watched()
    stream.run([watched])
    assert_all_counted(stream)
    assert watched.statuses[-1] == {**stream.status(), "elapsed": watched.statuses[-1]["elapsed"]}
    return stream, watched


def assert_all_counted(stream: Stream) -> None:
    frames = stream.status()["frames"]
    places = ("skipped", "thinned", "dropped", "handled", "left")
    assert frames["seen"] == sum(frames[place] for place in places), frames
    assert not frames["waiting"]


def counts(stream: Stream) -> dict[str, int]:
    return {name: count for name, count in stream.status()["frames"].items() if count}


def test_every_frame_once_in_order_with_its_time() -> None:
    session = Session()
    stream, _ = ran(Made(39), session)
    assert session.numbers == list(range(39))
    assert session.times == [i / 10 for i in range(39)]
    assert counts(stream) == {"seen": 39, "handled": 39}
    assert (stream.ended, stream.error, stream.status()["lag"]) == ("end", None, None)


def test_sampled_by_its_times() -> None:
    session = Session()
    stream, _ = ran(Made(40), session, fps=2)
    assert session.numbers == [0, 5, 10, 15, 20, 25, 30, 35]
    assert counts(stream) == {"seen": 40, "skipped": 32, "handled": 8}


def test_after_so_many_seconds_it_ends() -> None:
    session = Session()
    stream, _ = ran(Made(40), session, seconds=1.0)
    assert (session.numbers, stream.ended) == (list(range(10)), "seconds")


def test_when_frames_come_too_fast_block_waits_for_all() -> None:
    session = Session(delay=0.002)
    ran(Made(40), session)
    assert session.numbers == list(range(40))


def test_when_frames_come_too_fast_the_oldest_go() -> None:
    session = Session(delay=0.02)
    stream, _ = ran(Made(40), session, policy="drop_oldest")
    assert session.numbers == sorted(session.numbers)
    assert session.numbers[-4:] == [36, 37, 38, 39], "the newest are kept"
    frames = counts(stream)
    assert frames["seen"] == 40
    assert frames["dropped"] >= 20


def test_when_frames_come_too_fast_the_rate_is_lowered() -> None:
    session = Session(delay=0.01)
    stream, watched = ran(Made(400, script={}), session, policy="lower_rate")
    frames = counts(stream)
    assert frames["thinned"] > 200
    assert "dropped" not in frames
    assert max(status["stride"] for status in watched.statuses) == 8, "and never more than slowest"


def test_a_lowered_rate_rises_again() -> None:
    queue, let_in = FrameQueue("lower_rate", capacity=2, slowest=8), []

    def offer(number: int) -> None:
        before = len(queue)
        queue.put(Frame(image(0), float(number)))
        let_in.extend([number] * (len(queue) - before))

    for number in range(4):
        offer(number)
    assert (let_in, queue.stride, queue.thinned) == ([0, 1], 4, 2)
    for number in range(4, 80):
        queue.take(2, math.inf, 0.0)
        queue.take(1, math.inf, 0.0)
        offer(number)
    assert queue.stride == 1, "every second one, then every one again"
    assert let_in[-10:] == list(range(70, 80))
    assert queue.thinned + len(let_in) == 80


@pytest.mark.parametrize("policy", POLICIES)
def test_nothing_is_lost_uncounted_when_it_is_stopped_in_the_middle(policy: str) -> None:
    session = Session(delay=0.01)
    stream = Stream(session, Made(100_000), [Question("at the end", math.inf)], pace(policy=policy))
    threading.Thread(target=lambda: (session.fed.wait(), time.sleep(0.05), _thread.interrupt_main())).start()
    stream.run([])
    assert (stream.ended, stream.error, stream.unasked) == ("interrupted", None, 1)
    assert_all_counted(stream)
    assert counts(stream)["handled"] == len(session.numbers)


def test_questions_are_asked_at_their_times() -> None:
    session = Session()
    early, exact, between, late = (Question(str(at), at) for at in (0.0, 1.0, 2.05, 99.0))
    _, watched = ran(Made(40), session, early, exact, between, late, Question("end", math.inf))
    assert session.asked == [("0.0", 1), ("1.0", 11), ("2.05", 21), ("99.0", 40), ("end", 40)]
    assert session.numbers == list(range(40)), "chunks are cut short for a question, and go on"
    told = [(answer["id"], answer["at"], answer["asked_at"], answer["frames"]) for answer in watched.answers]
    assert told == [(1, 0.0, 0.0, 1), (2, 1.0, 1.0, 11), (3, 2.05, 2.0, 21), (4, 99.0, 3.9, 40), (5, "end", 3.9, 40)]
    assert watched.answers[0]["answer"] == "1 frames, 7 tokens at most"


def test_a_question_that_cannot_be_answered_is_told_and_the_stream_goes_on() -> None:
    session = Session()
    questions = [Question("impossible", 0.5), Question("large", 1.0), Question("fine", math.inf)]
    stream, watched = ran(Made(20), session, *questions)
    first, second, third = ((answer["answer"] is None, answer["error"]) for answer in watched.answers)
    assert (first, third) == ((True, "this cannot be answered"), (False, None))
    assert second[0]
    assert second[1].startswith("CUDA out of memory. Tried to allocate (ask with a lower max_new_tokens")
    assert (len(session.numbers), stream.error) == (20, None)


def test_questions_that_come_while_it_runs_and_after_the_last_frame() -> None:
    session = Session()
    stream = Stream(session, Made(10), [], pace(stay=True, waiting=2))
    answered = [stream.ask(Question("soon", origin="http", max_new_tokens=3)), stream.ask(Question("impossible"))]
    with pytest.raises(Refused, match="2 questions wait already"):
        stream.ask(Question("too many"))
    watched = Watched()

    def later() -> None:
        while not session.numbers or session.numbers[-1] < 9:
            time.sleep(0.01)
        answered.append(stream.ask(Question("after the end")))
        answered[-1].result(5)
        _thread.interrupt_main()

    threading.Thread(target=later).start()
    stream.run([watched])
    assert answered[0].result(0)["answer"] == "0 frames, 3 tokens at most"
    assert answered[1].result(0)["error"] == "this cannot be answered"
    assert answered[2].result(0)["frames"] == 10
    assert [answer["id"] for answer in watched.answers] == [1, 2, 3]
    with pytest.raises(Refused, match="the stream has ended"):
        stream.ask(Question("too late"))


def test_a_question_whose_asker_has_gone_is_not_asked() -> None:
    session = Session()
    stream = Stream(session, Made(4), [], pace())
    stream.ask(Question("gone")).cancel()
    stream.run([])
    assert not session.asked


def test_an_error_while_feeding_ends_all_in_order() -> None:
    session = Session(fails_at=21)
    stream, _ = ran(Made(40), session, Question("at the end", math.inf))
    assert (stream.ended, str(stream.error), stream.unasked) == ("error", "this frame is not liked", 1)
    assert session.numbers in (list(range(20)), list(range(21)))


def test_an_error_while_answering_reaches_the_asker_and_ends_all() -> None:
    stream = Stream(Session(), Made(10), [], pace())
    asked = stream.ask(Question("fatal"))
    waiting = stream.ask(Question("behind it"))
    stream.run([])
    assert (stream.ended, type(stream.error)) == ("error", RuntimeError)
    with pytest.raises(RuntimeError, match="out of order"):
        asked.result(0)
    with pytest.raises(Refused, match="ended before"):
        waiting.result(0)
    assert_all_counted(stream)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(SourceError("gone", "stalled"), "stalled"), (VideoError("no"), "error"), (ZeroDivisionError(), "error")],
)
def test_a_source_that_fails_leaves_its_frames_and_questions_in_order(error: Exception, reason: str) -> None:
    session = Session()
    stream, watched = ran(Made(40, script={13: error}), session, Question("end", math.inf), stay=True)
    assert (stream.ended, stream.error) == (reason, error)
    assert session.numbers == list(range(13))
    assert [answer["frames"] for answer in watched.answers] == [13], "what was to be asked at the end is"


def test_broken_frames_are_passed_over_up_to_so_many_in_a_row() -> None:
    session = Session()
    script: dict[int, Any] = dict.fromkeys((3, 4, 5, 8), "broken")
    stream, _ = ran(Made(12, script=script), session)
    assert session.numbers == [0, 1, 2, 6, 7, 9, 10, 11]
    assert counts(stream) == {"seen": 8, "handled": 8, "broken": 4}
    stream, _ = ran(Made(40, script=dict.fromkeys(range(5, 40), "broken")))
    assert (stream.ended, counts(stream)) == ("broken", {"seen": 5, "handled": 5, "broken": 4})
    assert "4 frames in a row could not be decoded (source.broken_limit=3)" in str(stream.error)


def test_frames_of_another_size_are_scaled_and_told() -> None:
    session = Session()
    stream, watched = ran(Made(12, script=dict.fromkeys((5, 6), "small")), session)
    assert session.numbers == list(range(12))
    assert counts(stream)["rescaled"] == 2
    assert watched.notices == ["frames are now 32×24; they are scaled to 64×48, as the first was"]


def test_a_source_that_hangs_where_nothing_reaches_it_has_stalled() -> None:
    session = Session()
    stream, watched = ran(Made(10, script={6: "hang"}, watched=0.15), session, Question("end", math.inf))
    assert (stream.ended, session.numbers) == ("stalled", list(range(6)))
    assert "made up: nothing came for 0.15 s" in str(stream.error)
    assert len(watched.answers) == 1


def test_at_its_own_pace() -> None:
    session = Session()
    stream, watched = ran(Made(5, rate=20.0, paced=True), session)
    assert watched.statuses[-1]["elapsed"] >= 0.2
    assert 0 <= stream.status()["lag"] <= stream.status()["longest_lag"]
    slow = Session(delay=0.1)
    stream, _ = ran(Made(6, rate=100.0, paced=True), slow, policy="block", chunk=1)
    assert stream.status()["longest_lag"] >= 0.4, "frames that wait are late"


def test_a_live_source_is_measured_by_the_frame_that_came_soonest() -> None:
    session = Session(delay=0.05)
    stream, _ = ran(Made(8, rate=1000.0, live=True), session, chunk=1)
    assert stream.status()["longest_lag"] >= 0.2


def test_ctrl_c_is_counted_where_it_can_do_no_harm() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.count == 2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_second_ctrl_c_does_not_wait_for_what_is_in_hand() -> None:
    session = Session(delay=5.0)
    stream = Stream(session, Made(10), [], pace(chunk=1))
    for pause in (0.2, 0.5):
        threading.Timer(pause, _thread.interrupt_main).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        stream.run([])
    assert time.monotonic() - started < 4
