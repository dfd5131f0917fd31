"""Compiles every kernel for an NVIDIA GPU, without one: what the interpreter forgives, the compiler may not.

At Qwen2-VL-7B's width a program must keep its tokens in registers: nothing may be spilled to memory.
"""

from __future__ import annotations

import re
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from compressors.kernels import centres, fused, moments, ranking

HOPPER = GPUTarget("cuda", 90, 32)
CHANNELS = 3584
WIDTH, ROWS, WARPS = fused._tile(CHANNELS)
POINTERS = {"features": "*bf16", "valid": "*i1", "keep": "*i64", "per_frame": "*i64", "ends": "*i64"}
NUMBERS = ("tokens", "channels", "stretch", "places", "share", "video_stride", "total")
KERNELS: list[tuple[Any, dict[str, Any], int]] = [
    (moments.moments_kernel, {"ROWS": 32, "CHANNELS": 128, "RAGGED": True}, 4),
    *(
        (centres.norms_kernel, {"ROWS": ROWS, "CHANNELS": WIDTH, "RAGGED": ragged, "MASKED": True, "UNIT": True}, WARPS)
        for ragged in (False, True)
    ),
    *(
        (
            centres.similarities_kernel,
            {"ROWS": ROWS, "CHANNELS": WIDTH, "RAGGED": False, "COSINE": cosine, "BANDWIDTHS": (0.125, 0.5, 2.0)},
            WARPS,
        )
        for cosine in (False, True)
    ),
    (ranking.select_kernel, {"PLACES": 256, "OTHERS": 32}, 4),
]


def signature(kernel: Any, constants: dict[str, Any]) -> dict[str, str]:
    def kind(name: str) -> str:
        if name in constants:
            return "constexpr"
        return "i32" if name in NUMBERS else POINTERS.get(name, "*fp32")

    return {name: kind(name) for name in kernel.arg_names}


def main() -> None:
    for kernel, constants, warps in KERNELS:
        source = ASTSource(fn=kernel, signature=signature(kernel, constants), constexprs=constants)
        made = triton.compile(source, target=HOPPER, options={"num_warps": warps})
        spilled = re.findall(r"\.local", made.asm["ptx"])
        assert made.asm["cubin"], f"{kernel.__name__}: no machine code"
        assert not spilled, f"{kernel.__name__} spills to memory"
        print(f"{kernel.__name__} {constants}: {len(made.asm['cubin'])} bytes")


if __name__ == "__main__":
    main()
