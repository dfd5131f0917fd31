"""Token scorers: one value per token, higher = keep."""

from compressors.scorers.attention import AttentionScorer
from compressors.scorers.vidcom2 import VidCom2Scorer

__all__ = ["AttentionScorer", "VidCom2Scorer"]
