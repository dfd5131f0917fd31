"""Build the published architectures whose vision tower is timm's; run by test_architectures.py.

A program of its own, because torchvision's operators must be in order before timm is imported.
"""

from __future__ import annotations

from tests.micro.compare_processors import prepare_torchvision


def main() -> None:
    """Fails unless the sizes are the published ones, and smaller with fewer layers."""
    prepare_torchvision()
    from tests.conf.test_architectures import OF_TIMM, test_fewer_layers, test_size

    for name in OF_TIMM:
        test_size(name)
        test_fewer_layers(name)


if __name__ == "__main__":
    main()
