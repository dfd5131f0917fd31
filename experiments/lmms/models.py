"""The classes that lmms-eval loads. This module needs it; import it through `manifests` or after `require`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import torch
from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from loguru import logger

from adapters import family_of
from adapters.errors import LoadError, UnsupportedError
from adapters.loading import check_attention, check_device, check_dtype, load_published
from adapters.micro import load_micro
from experiments.display import progress_bar
from experiments.lmms import CLASSES, FAMILY
from experiments.lmms.answering import Answerer, Request, Totals
from experiments.lmms.arguments import Arguments, parse


class Vidpress(lmms):  # type: ignore[misc]  # lmms-eval is not installed where types are checked
    """lmms-eval's model interface over an `Answerer`.

    It takes chat messages, and requests that generate from one prompt. Everything else is refused by name.
    """

    is_simple = False

    def __init__(self, answerer: Answerer) -> None:
        super().__init__()
        self.answerer = answerer
        self._rank, self._world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))

    @property
    def device(self) -> torch.device:
        """Where the model is; lmms-eval asks when several processes share a benchmark."""
        return torch.device(self.answerer.model.device)

    def generate_until(self, requests: Sequence[Any]) -> list[GenerationResult]:
        """Answer every request, in order; tokens and seconds go to the log and into the results' `throughput`."""
        questions = [self._request(*request.args) for request in requests]
        before, self.answerer.totals = self.answerer.totals, Totals()
        with progress_bar("answering") as progress:
            answers = self.answerer.answer(questions, lambda count: progress(count, len(questions)))
        totals = self.answerer.totals
        self.answerer.totals = before + totals
        logger.info("vidpress, {}: {}", self.answerer.compressor.title, totals)
        if totals.without_video:
            logger.warning(
                "{} of {} requests had no video: nothing of them was compressed (images never are).",
                totals.without_video,
                totals.requests,
            )
        spent = sum(seconds for stage, seconds in totals.seconds.items() if stage != "decode_video")
        log_metrics(spent, totals.generated, totals.generated / spent if spent else 0.0, totals.means())
        return [GenerationResult(a.text, TokenCounts(a.input_tokens, a.output_tokens)) for a in answers]

    def loglikelihood(self, requests: Sequence[Any]) -> NoReturn:
        """Refused."""
        self._refuse(requests, "scores given answers (loglikelihood)")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> NoReturn:
        """Refused."""
        self._refuse(requests, "asks in several rounds (generate_until_multi_round)")

    def generate_visual_cot(self, requests: Sequence[Any]) -> NoReturn:
        """Refused."""
        self._refuse(requests, "has the model draw (generate_visual_cot)")

    def clean(self) -> None:
        """Keep the model, although lmms-eval frees models before scoring: whoever made this one may go on with it."""

    def _request(
        self, _context: str, messages: Any, generation: dict[str, Any] | None, document: int, task: str, split: str
    ) -> Request:
        return Request(lambda: messages(self.task_dict[task][split][document]), generation or {})

    def _refuse(self, requests: Sequence[Any], what: str) -> NoReturn:
        tasks = ", ".join(sorted({str(request.task_name) for request in requests}))
        raise UnsupportedError(f"task {tasks} {what}; vidpress models generate from one prompt (generate_until) only.")


class Named(Vidpress):
    """A model by name: `--model <name> --model_args key=value,…`."""

    name: ClassVar[str]

    def __init__(self, **given: Any) -> None:
        arguments = parse(self.name, given)
        model, processor = _load(arguments)
        super().__init__(
            Answerer(
                model,
                processor,
                arguments.compressor,
                arguments.budget,
                positions=arguments.positions,
                newlines=arguments.newlines,
                frames=arguments.frames,
                fps=arguments.fps,
                batch=arguments.batch_size,
                stop_at_blank_line=arguments.stop_at_blank_line,
            )
        )
        logger.info("vidpress, {}: {}", self.name, arguments)

    def clean(self) -> None:
        """Free the model: a judge may need the room."""
        del self.answerer
        super(Vidpress, self).clean()


# One class per name, as lmms-eval wants it: `models.LlavaOnevision` is `vidpress_llava_onevision`.
for _name, _class in CLASSES.items():
    globals()[_class] = type(_class, (Named,), {"name": _name, "__module__": __name__, "__doc__": f"`{_name}`."})


def _load(arguments: Arguments) -> tuple[Any, Any]:
    """The model and its processor, on this process's device."""
    device = _own_device(arguments.device)
    if arguments.name == "vidpress_micro":
        target, dtype = check_device(device), check_dtype(arguments.dtype)
        check_attention(arguments.attn_implementation, target, dtype)
        if arguments.pretrained is not None and not Path(arguments.pretrained).is_dir():
            raise LoadError(
                f"pretrained={arguments.pretrained}: there is no such folder; leave it out for the weights "
                f"that come with vidpress."
            )
        return load_micro(target, dtype, arguments.attn_implementation, arguments.pretrained)
    model, processor = load_published(
        str(arguments.pretrained),
        device=device,
        dtype=arguments.dtype,
        attn_implementation=arguments.attn_implementation,
    )
    found = family_of(model)
    if found is not arguments.family:
        fitting = next(name for name, family in FAMILY.items() if family == found.name and name != "vidpress_micro")
        raise UnsupportedError(f"{arguments.pretrained} is of family {found.name}: write --model {fitting}.")
    return model, processor


def _own_device(device: str) -> str:
    """With several processes (`accelerate launch`), each takes the GPU of its local rank."""
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    if several and torch.cuda.is_available() and device in ("auto", "cuda"):
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return device
