"""Token scorers: one value per token, higher = keep."""

from compressors.scorers.attention import AttentionScorer
from compressors.scorers.cdpruner import CDPrunerScorer
from compressors.scorers.dycoke import DyCokeScorer
from compressors.scorers.evs import EvsScorer
from compressors.scorers.stc_pruner import StcPrunerScorer
from compressors.scorers.timechat_dtd import DifferentialTokenDropScorer
from compressors.scorers.vcast import VCastScorer
from compressors.scorers.vidcom2 import VidCom2Scorer

__all__ = [
    "AttentionScorer",
    "CDPrunerScorer",
    "DifferentialTokenDropScorer",
    "DyCokeScorer",
    "EvsScorer",
    "StcPrunerScorer",
    "VCastScorer",
    "VidCom2Scorer",
]
