"""vidpress: composable, training-free visual token compression for video language models.

from vidpress import press, compress

with press(model, "vidcom2", allocator="fca", retention=0.25) as report:
    out = model.generate(**inputs, max_new_tokens=64)
print(report)

result = compress(features, "vidcom2", retention=0.25)   # features [T, N, C]
"""

from adapters import AlreadyPressed, Press, Report, UnsupportedError, families, mark_videos, press
from adapters.streaming import StreamSession
from compressors import (
    Budget,
    Compression,
    Method,
    VideoTokens,
    VidpressError,
    build,
    compress,
    methods,
    register,
    wrap,
)
from compressors.plan_budget import BudgetPlan, plan_budget

__version__ = "0.1.0"

__all__ = [
    "AlreadyPressed",
    "Budget",
    "BudgetPlan",
    "Compression",
    "Method",
    "Press",
    "Report",
    "StreamSession",
    "UnsupportedError",
    "VideoTokens",
    "VidpressError",
    "build",
    "compress",
    "families",
    "mark_videos",
    "methods",
    "plan_budget",
    "press",
    "register",
    "wrap",
]
