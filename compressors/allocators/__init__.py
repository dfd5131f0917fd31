"""Allocators: how many tokens each frame may keep; and the frame scorers they own."""

from compressors.allocators.fca import FrameCompressionAdjustment
from compressors.allocators.frame_subsample import FrameSubsample
from compressors.allocators.frame_uniqueness import FrameUniqueness
from compressors.allocators.uniform import Uniform

__all__ = ["FrameCompressionAdjustment", "FrameSubsample", "FrameUniqueness", "Uniform"]
