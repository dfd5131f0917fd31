"""Hold the embedded model's preprocessing to the library's processor, bit for bit; run by test_processing.py.

A program of its own, because torchvision's operators must be in order before transformers is imported.
"""

from __future__ import annotations

import sys

import torch


def prepare_torchvision() -> None:
    """Import torchvision, also a CUDA build without CUDA: it lacks two operators, whose names are all that it needs."""
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        schemas = torch.library.Library("torchvision", "DEF")
        schemas.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        schemas.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        globals()["kept"] = schemas  # the operators go when the library object goes
        import torchvision  # noqa: F401


def main() -> None:
    """Compare all inputs for several sizes; exit status 1 at the first difference."""
    prepare_torchvision()
    from transformers import AutoProcessor

    from adapters.micro import MicroProcessor, weights_dir

    mine, theirs = MicroProcessor.from_pretrained(weights_dir()), AutoProcessor.from_pretrained(str(weights_dir()))
    text = mine.prompt("Which shape flashed?")
    for shape in [(16, 112, 112), (7, 112, 168), (4, 100, 90), (3, 240, 320), (2, 600, 900), (5, 60, 50)]:
        frames = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        ours = mine(text, frames)
        library = theirs(text=[text], videos=[frames.permute(0, 3, 1, 2)], return_tensors="pt")
        if ours.keys() != library.keys():
            raise SystemExit(f"{shape}: {sorted(ours)} and {sorted(library)}")
        for key in ours:
            if not torch.equal(ours[key], library[key].to(ours[key].dtype)):
                raise SystemExit(f"{shape}: {key} differs")


if __name__ == "__main__":
    main()
