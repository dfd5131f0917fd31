"""Allocators: how many tokens each frame may keep; and the frame scorers they own."""

from compressors.allocators.causal_fca import CausalFrameCompressionAdjustment
from compressors.allocators.dycoke import DyCokePattern
from compressors.allocators.evs import VideoRanking
from compressors.allocators.fca import FrameCompressionAdjustment
from compressors.allocators.frame_subsample import FrameSubsample
from compressors.allocators.frame_uniqueness import FrameUniqueness
from compressors.allocators.mass import MassProportional
from compressors.allocators.novelty import FrameNovelty, Novelty
from compressors.allocators.segment_coverage import SegmentCoverage, SegmentShares
from compressors.allocators.timechat_dtd import DifferentialTokenDrop
from compressors.allocators.uniform import Uniform
from compressors.allocators.uniqueness_mass import UniquenessMass
from compressors.allocators.vcast import Curvature

__all__ = [
    "CausalFrameCompressionAdjustment",
    "Curvature",
    "DifferentialTokenDrop",
    "DyCokePattern",
    "FrameCompressionAdjustment",
    "FrameNovelty",
    "FrameSubsample",
    "FrameUniqueness",
    "MassProportional",
    "Novelty",
    "SegmentCoverage",
    "SegmentShares",
    "Uniform",
    "UniquenessMass",
    "VideoRanking",
]
