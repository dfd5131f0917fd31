"""`StreamSession`: frames in at any time, questions at any time, constant memory and constant time per frame."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from adapters.attention import check_jumps
from adapters.caching import bind_cacher
from adapters.errors import AlreadyPressed
from adapters.family import family_of
from adapters.press import PRESSED
from adapters.streaming import saving
from adapters.streaming.chunks import Chunks
from adapters.streaming.decoding import LanguageModel
from adapters.streaming.encoder import Encoder, checked_frames
from adapters.streaming.errors import SaveError, StreamError
from adapters.streaming.form import Form, Kept, Piece, TextPosition, Told
from adapters.streaming.form import Kind as FormKind
from adapters.streaming.memory import Memory, Store, build_memory
from adapters.streaming.memory.queries import query_modules, reading
from adapters.streaming.memory.units import Vector
from adapters.streaming.rotation import Rotation
from adapters.streaming.settings import (
    check_choices,
    checked_chunk,
    checked_fps,
    checked_times,
    compressor_of,
    tower_needs,
)
from adapters.streaming.status import Answer, Fed, Stopwatch, StreamStatus
from adapters.streaming.stream import Stream
from adapters.streaming.wording import wording_of
from compressors import Budget, Compressor, InputError

_PLACES = ("host_limit", "disk", "disk_limit")  # settings of a memory that say where, not what
LARGEST_CHUNK = 32  # frames of one feed() that are processed together when `chunk` does not say


class StreamSession:
    """One stream on a model: feed it frames, ask it questions.

    Frames are preprocessed as the model's processor does, go through the vision tower (with reuse by a cacher), lose
    tokens to a pruner, and extend the key/value memory. Frames that do not fill a temporal group (or `chunk`) wait
    until they do; a question sees them all the same, for itself alone. Everything runs in the caller's thread; one
    thread may feed while others ask, and several sessions may share a model.

    Args:
        model: an unmodified Hugging Face video language model of a known family, in evaluation mode.
        processor: its processor (or the embedded model's, or a `LayoutProcessor`).
        cacher: reuse in the vision tower between chunks: a name, `{"name": …, params}`, an instance or None.
        pruner: compression of each chunk: a method's name, a `Compressor` or None (every token stays).
        retention, tokens, tokens_per_frame: the pruner's budget of each chunk; at most one (default: retention 0.25).
        memory: a name, a mapping with `name` and parameters, or a `Memory`.
        chunk: frames that are processed together; None processes what a feed() brings, at most 32 frames at a time.
        system: text of a system turn; None leaves it to the model's template.
        form: "video", the stream is one video in one user turn (ReKV), or "turns", every chunk is a video in a user
            turn of its own (LiveCC).
        fps: frames per second where feed() gets no timestamps, and the nominal rate of the stream's clock.
        label: what a turn says before its frames; {start} and {end} are seconds. "" says nothing.
        text_position: where text after a video begins (M-RoPE): "library", as transformers computes it, or "largest",
            behind the video's last group.
        positions: "original": dropped tokens leave gaps; "contiguous": they do not (1-D positions only).
        **params: parts and parameters of the pruner, and parameters of the cacher, as in `build`.

    Raises:
        UnsupportedError: the model is of no known family, or cannot do what the memory needs.
        AlreadyPressed: the model is under a `press`; give the session `pruner=` instead.
        AlreadyBound: another cacher is in the tower; sessions on one model share theirs.
        BuildError, UnknownNameError, BudgetError, RequirementError: settings that do not fit.

    Example:
        >>> with StreamSession(model, processor, pruner="stc_pruner", retention=0.25, memory="retrieval") as session:
        ...     session.feed(frames)                      # uint8 [F, H, W, 3], as they come
        ...     print(session.ask("What is there now?").text)
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        *,
        cacher: Any = None,
        pruner: str | Compressor | None = None,
        retention: float | None = None,
        tokens: int | None = None,
        tokens_per_frame: float | None = None,
        memory: str | Mapping[str, Any] | Memory = "window",
        chunk: int | None = None,
        system: str | None = None,
        form: FormKind = "video",
        fps: float = 2.0,
        label: str = "Time={start:.1f}-{end:.1f}s",
        text_position: TextPosition = "library",
        positions: Literal["original", "contiguous"] = "original",
        **params: Any,
    ) -> None:
        family = family_of(model)
        self._model, self._family, self._processor = model, family, processor
        family.refuse("streaming")
        self._refuse_pressed()
        compressor = compressor_of(model, pruner, cacher, params, [retention, tokens, tokens_per_frame])
        self._pruner = None if pruner in (None, "none") else compressor
        self._budget = Budget(retention, tokens, tokens_per_frame)
        self.memory = build_memory(memory)
        self._encoder = Encoder(model, family, processor, tower_needs(self._pruner))
        self._fps, self._chunk = checked_fps(fps), checked_chunk(chunk, self._encoder.group)
        axes = 3 if family.mrope else 1
        framed = family.position_groups == "frame"
        check_choices(form, text_position, positions, axes, label)
        vision = model.config.vision_config
        self._form = Form(
            kind=form,
            wording=wording_of(model, processor, system, framed=framed),
            axes=axes,
            framed=framed,
            newline=family.structure(model) == "video_end",
            per_second=getattr(vision, "tokens_per_second", None) if family.mrope and not framed else None,
            seconds=self._encoder.group / self._fps,
            text_position=text_position,
            contiguous=positions == "contiguous",
            label=label,
        )
        self._chunks = Chunks(self._encoder, self._pruner, self._budget, self._form.seconds)
        self._language = LanguageModel(model, family)
        if self._pruner is not None and axes == 1 and positions == "original":
            check_jumps(self._language.decoder)
        self._axes = axes
        self._feeding, self._lock = threading.Lock(), threading.RLock()
        self._closed = False
        self._fingerprint: str | None = None
        self._store = self._open()
        if self._store.needs_queries:
            query_modules(self._language.decoder)
        self._stream = Stream()
        self._watch = Stopwatch(self._language.device)
        # Last, so that nothing is left in the tower when something else does not fit.
        self._binding = None if compressor.cacher is None else bind_cacher(model, compressor.cacher)
        self._reference = None if self._binding is None else self._binding.new_state()

    # Frames

    def feed(self, frames: Any, timestamps: Sequence[float] | None = None) -> Fed:
        """Take frames in.

        Args:
            frames: uint8 RGB `[F, H, W, 3]`, tensor or array, or a list of such frames; F may be 0.
            timestamps: seconds since the stream's start, one per frame, never falling; None: 1/fps after the last one.

        Returns:
            What was done.

        Raises:
            InputError: frames of another shape, type or size than the stream's, or times that fall.
            StreamError: the memory cannot take them; or the session is closed.

        If it fails, the memory is as the last whole chunk left it: frames of this call that were not processed are
        dropped, frames that were waiting before still wait unless they were processed.
        """
        start = time.perf_counter()
        found = checked_frames(frames)
        with self._feeding, torch.no_grad():
            self._check_open()
            before = self._stream
            times = checked_times(len(found), timestamps, before.last, self._fps)
            if not len(found):
                return Fed(0, 0, len(before.held_times), 0, 0, time.perf_counter() - start)
            size = (found.shape[1], found.shape[2])
            if before.size not in (None, size):
                raise InputError(
                    f"frames are {size[0]}x{size[1]} now, the stream began with {before.size[0]}x{before.size[1]}: "
                    f"resize them, or reset() for a new stream."
                )
            waiting = found if before.held is None else torch.cat([before.held, found])
            all_times = (*before.held_times, *times)
            done = 0
            for stop in (cuts := self._cuts(len(waiting))):
                last = stop == cuts[-1]
                held = waiting[stop:].clone() if last and stop < len(waiting) else None
                self._take(waiting[done:stop], all_times[done:stop], held, all_times[stop:] if last else (), size)
                done = stop
            with self._lock:
                if not done:
                    before_held = dataclasses.replace(before, held=waiting.clone(), held_times=all_times, size=size)
                    self._stream = before_held
                after = self._stream = dataclasses.replace(self._stream, last=all_times[-1])
        return Fed(
            len(found),
            after.frames - before.frames,
            len(after.held_times),
            after.tokens - before.tokens,
            after.kept - before.kept,
            time.perf_counter() - start,
        )

    def _cuts(self, frames: int) -> list[int]:
        """Where so many waiting frames are cut into chunks; what is beyond the last cut goes on waiting."""
        group = self._encoder.group
        if self._chunk is not None:
            return list(range(self._chunk, frames + 1, self._chunk))
        whole, step = frames // group * group, LARGEST_CHUNK // group * group
        return sorted({*range(step, whole + 1, step), whole} - {0})

    def _take(
        self,
        frames: Tensor,
        times: tuple[float, ...],
        held: Tensor | None,
        held_times: tuple[float, ...],
        size: tuple[int, int],
    ) -> None:
        """Process one chunk of whole groups and put it into the memory; all of it or nothing."""
        stream = self._stream
        try:
            done = self._chunks(frames, times, stream, self._watch, self._reuse)
            with self._watch.stage("extend"):
                told, pieces, end = self._write(self._store, done.kept, stream.told, check=True)
        except BaseException:
            if self._reference is not None:
                self._reference.reset()  # it may hold frames that will never be in the memory
            raise
        after = Stream(
            told=told,
            history=done.history,
            held=held,
            held_times=held_times,
            size=size,
            last=times[-1],
            frames=stream.frames + len(frames),
            tokens=stream.tokens + done.tokens,
            kept=stream.kept + done.kept.features.shape[0],
        )
        with self._lock:
            # If what leaves the window finds no place on disk, the chunk is in all the same.
            self._stream = after
            self._store.commit([piece.unit for piece in pieces], end)

    def _write(self, store: Store, kept: Kept, told: Told, *, check: bool) -> tuple[Told, list[Piece], Vector]:
        """Run a chunk through the language model, into a store that has yet to commit it."""
        self._begin(store)
        pieces, told, end = self._form.chunk(kept, told, store.tail)
        units = [piece.unit for piece in pieces]
        if check:
            store.check(units)
        if units:
            with self._lock:
                cache = store.cache(sum(unit.tokens for unit in units))
            self._language.write(pieces, kept, cache)
        return told, pieces, end

    def _begin(self, store: Store) -> None:
        """Put the prompt's opening into a store that is still empty."""
        if not store.begun:
            opening = self._form.opening(self._language.device)
            if opening.unit.tokens:
                with self._lock:
                    cache = store.cache(opening.unit.tokens)
                self._language.write([opening], None, cache)
            with self._lock:
                store.begin(opening.unit)

    # Questions

    def ask(self, question: str, *, max_new_tokens: int = 64, keep: bool = False, logits: bool = False) -> Answer:
        """Answer a question about the stream so far. Nothing of it stays, and feeding may go on meanwhile.

        Frames that still wait are looked at too, an incomplete group filled up with its last frame, without reuse by
        the cacher; the stream goes on as if nobody had asked.

        Args:
            question: the user's words.
            max_new_tokens: the answer's length at most; decoding is greedy.
            keep: put question and answer into the memory, as turns of the dialogue that later ones may refer to
                (`form="turns"`); feeding waits until they are in.
            logits: return those of every step.

        Raises:
            InputError: an empty question, or `keep` where the stream is one turn.
            StreamError: no frame has come yet, the session is closed, or the memory cannot take what is kept.
        """
        if not isinstance(question, str) or not question.strip():
            raise InputError(f"question={question!r}: ask something.")
        if max_new_tokens < 1:
            raise InputError(f"max_new_tokens={max_new_tokens} must be at least 1.")
        if not keep:
            return self._answer(question, max_new_tokens, logits)
        if not self._form.turns:
            raise InputError('keep=True needs turns to keep: make the session with form="turns".')
        with self._feeding:
            answer = self._answer(question, max_new_tokens, logits)
            self._keep(question, answer)
        return answer

    def _answer(self, question: str, max_new_tokens: int, logits: bool) -> Answer:
        start = time.perf_counter()
        with torch.no_grad(), self._watch.stage("answer"):
            parts, words = self._form.question(question, self._language.device)
            room = words.shape[0] + max_new_tokens
            with self._lock:
                self._check_open()
                stream = self._stream
                if not stream.frames and not stream.held_times:
                    raise StreamError("no frame has come yet: feed() some before the first question.")
                store = self._store.fork(room)
            told = self._with_waiting(store, stream)
            assert told.grid is not None
            grid = told.grid
            with reading(self._language.decoder, words) if store.needs_queries else nullcontext() as queries:
                asked = store.question(lambda end: self._form.after(end, grid), queries, room)
                spoken = self._language.speak(asked, parts, max_new_tokens, logits)
            text = self._form.wording.decode(list(spoken.ids))
        seconds = time.perf_counter() - start
        return Answer(text, seconds, asked.slots + words.shape[0], spoken.ids, asked.blocks, spoken.logits)

    def _keep(self, question: str, answer: Answer) -> None:
        """Run a question and its answer into the memory; `_feeding` is held."""
        with torch.no_grad():
            self._begin(self._store)
            said = self._language.without_end(answer.ids)
            piece = self._form.said(question, said, self._store.tail, self._language.device)
            self._store.check([piece.unit])
            with self._lock:
                cache = self._store.cache(piece.unit.tokens)
            self._language.write([piece], None, cache)
            with self._lock:
                self._store.commit([piece.unit], piece.unit.following)

    def _with_waiting(self, store: Store, stream: Stream) -> Told:
        """Put the frames that wait into a fork of the memory."""
        if stream.held is None:
            return stream.told
        missing = -len(stream.held) % self._encoder.group
        frames = torch.cat([stream.held, stream.held[-1:].expand(missing, -1, -1, -1)])
        times = (*stream.held_times, *[stream.held_times[-1]] * missing)
        done = self._chunks(frames, times, stream, Stopwatch(self._language.device))
        told, pieces, end = self._write(store, done.kept, stream.told, check=False)
        store.commit([piece.unit for piece in pieces], end)
        return told

    # State

    @property
    def status(self) -> StreamStatus:
        """The session in numbers."""
        with self._lock:
            stream, held, nbytes = self._stream, self._store.held, dict(self._store.nbytes)
        return StreamStatus(
            frames=stream.frames,
            waiting=len(stream.held_times),
            seconds=stream.last or 0.0,
            tokens=stream.tokens,
            kept=stream.kept,
            held=held,
            device_bytes=nbytes.get("device", 0),
            host_bytes=nbytes.get("host", 0),
            disk_bytes=nbytes.get("disk", 0),
            reuse=None if self._reference is None else self._reference.reuse,
            stages=self._watch.seconds(),
        )

    def save(self, path: str | Path) -> None:
        """Write the stream to a file, whole or not at all; see `load`.

        Raises:
            SaveError: the file cannot be written, or the pruner's state cannot be saved.
            StreamError: the session is closed.
        """
        with self._feeding:
            with self._lock:
                self._check_open()
                stream, (stored, kept) = self._stream, self._store.state()
            tensors = {f"memory.{name}": tensor for name, tensor in stored.items()}
            values = {**stream.saved(tensors), "memory": kept}
            if self._reference is not None:
                tensors |= {f"cacher.{name}": tensor.cpu() for name, tensor in self._reference.tensors().items()}
        saving.write(path, self._settings(), values, tensors)

    def load(self, path: str | Path) -> None:
        """Go on with a stream that a session on the same model, with the same settings, has saved.

        Bounds that say where a memory's bytes go (`host_limit`, `disk`, `disk_limit`) and `chunk` may differ.

        Raises:
            SaveError: the file is missing, damaged, foreign, or of another model, version or settings. The session is
                as it was.
            StreamError: the session is closed.
        """
        values, tensors = saving.read(path, self._settings())
        device = self._language.device
        store = self._open()
        try:
            store.restore(saving.below("memory.", tensors), values["memory"], device)
            stream = Stream.loaded(values, tensors, device)
            reference = None if self._binding is None else self._binding.new_state()
            if reference is not None:
                # Anything but whole numbers is as it was computed, on the model's device.
                saved = saving.below("cacher.", tensors)
                reference.load({n: t.to(device) if t.is_floating_point() else t for n, t in saved.items()})
        except StreamError:
            store.close()
            raise
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            store.close()
            raise SaveError(f"{path} is damaged: {error}") from error
        with self._feeding, self._lock:
            self._check_open()
            self._reference = reference
            old, self._store, self._stream = self._store, store, stream
            old.close()

    def _settings(self) -> dict[str, Any]:
        """What must be equal for a file to fit."""
        if self._fingerprint is None:
            self._fingerprint = saving.fingerprint(self._model)
        memory = dataclasses.asdict(self.memory)  # type: ignore[call-overload]
        form = {name: getattr(self._form, name) for name in ("kind", "text_position", "contiguous", "label", "seconds")}
        return {
            "model": self._fingerprint,
            "memory": self.memory.name,
            **{f"memory.{name}": value for name, value in memory.items() if name not in _PLACES},
            **{f"form.{name}": value for name, value in form.items()},
            "opening": self._form.wording.opening(turns=self._form.turns).tolist(),
            "cacher": None if self._binding is None else repr(self._binding.cacher),
            "pruner": None if self._pruner is None else dict(self._pruner.describe()),
            "budget": None if self._pruner is None else dataclasses.asdict(self._budget),
        }

    def reset(self) -> None:
        """Forget the stream; the next frame begins a new one."""
        with self._feeding, self._lock:
            self._check_open()
            old, self._store = self._store, self._open()
            self._stream = Stream()
            if self._reference is not None:
                self._reference.reset()
            old.close()

    def close(self) -> None:
        """End the session and leave the model as it was found. Harmless when closed already."""
        with self._feeding, self._lock:
            if not self._closed:
                self._closed = True
                self._store.close()
                if self._binding is not None:
                    self._binding.remove()

    def __enter__(self) -> StreamSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> Store:
        return self.memory.open(self._language.layers, lambda: Rotation(self._language.decoder, self._axes), self._axes)

    def _reuse(self) -> AbstractContextManager[Any]:
        if self._binding is None or self._reference is None:
            return nullcontext()
        return self._binding.using(self._reference)

    # Checks

    def _check_open(self) -> None:
        if self._closed:
            raise StreamError("this session is closed: make a new one.")
        self._refuse_pressed()

    def _refuse_pressed(self) -> None:
        if PRESSED in vars(self._model):
            raise AlreadyPressed(
                f"this {type(self._model).__name__} is pressed with {vars(self._model)[PRESSED]}: leave that `with` "
                f"block, and give the session pruner= instead."
            )
