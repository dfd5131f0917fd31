"""Compressors: which visual tokens of a video stay. Algorithms on tensors; no model is known here."""

from compressors import (  # noqa: F401 (registers every part and preset)
    allocators,
    cachers,
    chain,
    fastvid,
    flashvid,
    holitom,
    mergers,
    no_compression,
    presets,
    prunevid,
    scorers,
    selectors,
    sttm,
)
from compressors.base import (
    Allocator,
    CacheBinding,
    CacheReuser,
    CacheState,
    Compression,
    Compressor,
    FrameScorer,
    Merger,
    Part,
    Selection,
    Selector,
    TokenScorer,
)
from compressors.budget import Budget, FrameBudgets
from compressors.build import build
from compressors.checks import check_flag, raise_failed_checks
from compressors.composition import Composition
from compressors.compress import compress
from compressors.errors import (
    BudgetError,
    BuildError,
    InputError,
    RequirementError,
    SelectionError,
    UnknownNameError,
    VidpressError,
)
from compressors.fates import Fates
from compressors.functional.statistics import finite_flag
from compressors.merge_map import MergeMap
from compressors.methods import Method, Row, add_method, method, method_names, methods, rows
from compressors.registry import lookup, make, names, register
from compressors.requirements import Attention, FrameFeatures, Grid, History, Keys, Query, Requirement, Timestamps
from compressors.tokens import VideoTokens
from compressors.wrap import wrap

__all__ = [
    "Allocator",
    "Attention",
    "Budget",
    "BudgetError",
    "BuildError",
    "CacheBinding",
    "CacheReuser",
    "CacheState",
    "Composition",
    "Compression",
    "Compressor",
    "Fates",
    "FrameBudgets",
    "FrameFeatures",
    "FrameScorer",
    "Grid",
    "History",
    "InputError",
    "Keys",
    "MergeMap",
    "Merger",
    "Method",
    "Part",
    "Query",
    "Requirement",
    "RequirementError",
    "Row",
    "Selection",
    "SelectionError",
    "Selector",
    "Timestamps",
    "TokenScorer",
    "UnknownNameError",
    "VideoTokens",
    "VidpressError",
    "add_method",
    "build",
    "check_flag",
    "compress",
    "finite_flag",
    "lookup",
    "make",
    "method",
    "method_names",
    "methods",
    "names",
    "raise_failed_checks",
    "register",
    "rows",
    "wrap",
]
