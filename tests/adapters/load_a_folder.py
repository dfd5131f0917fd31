"""Load a checkpoint with its processor from a local folder; run by test_loading.py.

A program of its own, because torchvision's operators must be in order before transformers is imported.
"""

from __future__ import annotations

import torch

from tests.micro.compare_processors import prepare_torchvision


def main() -> None:
    """Fails unless model and processor are what was asked for."""
    prepare_torchvision()
    from adapters import loading
    from adapters.micro import weights_dir

    model, processor = loading.load_published(str(weights_dir()), dtype="float32", device="cpu")
    assert model.dtype == torch.float32
    assert not model.training
    assert processor.tokenizer is not None


if __name__ == "__main__":
    main()
