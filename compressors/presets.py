"""The list of presets, which is the list of methods: YAML, tests, tables and `--help` are made of it."""

from __future__ import annotations

from compressors.methods import Method, add_method

_VIDCOM2 = "VidCom2, arXiv 2505.14454"
_VISIONZIP = "VisionZip, arXiv 2412.04467"
_VCAST = "V-CAST, arXiv 2603.27650"
_DYCOKE = "DyCoke, arXiv 2411.15024"
_DIVPRUNE = "DivPrune, arXiv 2503.02175"
_CDPRUNER = "CDPruner, arXiv 2506.10967"
_EVS = "Efficient Video Sampling, arXiv 2510.14624"
_TIMECHAT = "TimeChat-Online, arXiv 2504.17343"
_STC = "STC, arXiv 2512.00891"
_FASTVID = "FastVID, arXiv 2503.11187"
_TOME = "ToMe, arXiv 2210.09461"
_HOLITOM = "HoliTom, arXiv 2505.21334"
_FLASHVID = "FlashVID, arXiv 2602.08024"
_PRUNEVID = "PruneVid, arXiv 2412.16117"
_STTM = "STTM, arXiv 2507.07990"
_BASELINE = "baseline"

_VIDCOM2_SCORER = {"name": "vidcom2"}
_SALIENCY = {"name": "token_saliency"}
_PRINTED = {"channels": "all", "kernel": "cosine", "centres": "raw"}

_FASTVID_QWEN = {
    "name": "fastvid",
    "threshold": 0.84,
    "duplicate": 0.95,
    "context_share": 0.5,
    "centre_weight": 0.5,
    "include_centre": False,
    "frame_descriptor": "mean",
    "row": "column_mean",
}

PRESETS = (
    Method("none", "no compression: every token is kept, whatever the budget", compressor={"name": "none"}),
    Method(
        "vidcom2",
        "tokens unlike their frame's and the video's mean, more of them in unique frames",
        _VIDCOM2,
        {"scorer": _VIDCOM2_SCORER, "allocator": {"name": "fca"}, "selector": _SALIENCY},
    ),
    Method(
        "vidcom2_released",
        "as vidcom2, with the release's rounding: the total differs a little from the budget",
        _VIDCOM2,
        {"scorer": _VIDCOM2_SCORER, "allocator": {"name": "fca", "rounding": "nearest"}, "selector": _SALIENCY},
    ),
    Method(
        "vidcom2_paper",
        "as the paper prints it: all channels, cosine to raw means, budgets rounded up",
        _VIDCOM2,
        {
            "scorer": {"name": "vidcom2", **_PRINTED},
            "allocator": {
                "name": "fca",
                "frame_scorer": {"name": "frame_uniqueness", **_PRINTED},
                "rounding": "ceil",
            },
            "selector": _SALIENCY,
        },
    ),
    Method(
        "visionzip",
        "most attended tokens, and evenly spaced ones of the rest into which what remains is averaged",
        _VISIONZIP,
        {
            "scorer": {"name": "attention"},
            "allocator": {"name": "uniform"},
            "selector": {"name": "dominant_contextual"},
            "merger": {"name": "nearest_kept", "metric": "keys"},
        },
    ),
    Method(
        "visionzip_original",
        "as the authors' release: class-token attention, budgets rounded down, merged rows are sums of weight two",
        _VISIONZIP,
        {
            "scorer": {"name": "attention", "row": "cls"},
            "allocator": {"name": "uniform", "rounding": "floor"},
            "selector": {"name": "dominant_contextual"},
            "merger": {"name": "nearest_kept", "metric": "keys", "combine": "sum"},
        },
    ),
    Method(
        "visionzip_released",
        "as released with VidCom2: three in five by attention, the rest by density, compared by features",
        _VISIONZIP,
        {
            "scorer": {"name": "attention"},
            "allocator": {"name": "uniform", "rounding": "floor"},
            "selector": {"name": "dominant_contextual", "dominant_ratio": 0.6, "contextual": "density"},
            "merger": {"name": "nearest_kept"},
        },
    ),
    Method(
        "vcast",
        "tokens unlike their frame's mean and long ones, more of them where the video's path bends",
        _VCAST,
        {"scorer": {"name": "vcast"}, "allocator": {"name": "vcast"}, "selector": _SALIENCY},
    ),
    Method(
        "vcast_released",
        "as vcast, with the release's rounding: one frame gets the whole remainder",
        _VCAST,
        {
            "scorer": {"name": "vcast"},
            "allocator": {"name": "vcast", "rounding": "released"},
            "selector": _SALIENCY,
        },
    ),
    Method(
        "dycoke",
        "every fourth frame whole, of the others what changed since their reference frame",
        _DYCOKE,
        {"scorer": {"name": "dycoke"}, "allocator": {"name": "dycoke"}, "selector": _SALIENCY},
    ),
    Method(
        "dycoke_released",
        "as dycoke, with the release's counts: the retention is that of the pruned frames, an odd last frame goes",
        _DYCOKE,
        {
            "scorer": {"name": "dycoke"},
            "allocator": {"name": "dycoke", "rounding": "released"},
            "selector": _SALIENCY,
        },
    ),
    Method(
        "divprune",
        "the tokens of each frame that are most unlike each other",
        _DIVPRUNE,
        {"allocator": {"name": "uniform"}, "selector": {"name": "divprune"}},
    ),
    Method(
        "cdpruner",
        "tokens relevant to the question and unlike each other",
        _CDPRUNER,
        {"scorer": {"name": "cdpruner"}, "allocator": {"name": "uniform"}, "selector": {"name": "dpp"}},
    ),
    Method(
        "evs",
        "the first frame, and what changed most since the frame before, over the whole video",
        _EVS,
        {"scorer": {"name": "evs"}, "selector": _SALIENCY},
    ),
    Method(
        "evs_released",
        "as evs, with the release's count: never less than one frame",
        _EVS,
        {
            "scorer": {"name": "evs"},
            "allocator": {"name": "evs", "rounding": "released"},
            "selector": _SALIENCY,
        },
    ),
    Method(
        "timechat_dtd",
        "as evs, and goes on from chunk to chunk of a stream (the relative form, on features)",
        _TIMECHAT,
        {"scorer": {"name": "timechat_dtd"}, "allocator": {"name": "timechat_dtd"}, "selector": _SALIENCY},
    ),
    Method(
        "timechat_dtd_released",
        "what changed by more than a threshold since the frame before, whatever the budget",
        _TIMECHAT,
        {
            "scorer": {"name": "timechat_dtd"},
            "allocator": {"name": "timechat_dtd", "threshold": 0.5},
            "selector": _SALIENCY,
        },
    ),
    Method(
        "stc_pruner",
        "tokens unlike their frame's mean and unlike the stream so far, equally many per frame",
        _STC,
        {"scorer": {"name": "stc_pruner"}, "allocator": {"name": "uniform"}, "selector": _SALIENCY},
    ),
    Method(
        "stc_pruner_released",
        "as stc_pruner, with the release's memory, which pairs channels by their rank of variance",
        _STC,
        {
            "scorer": {"name": "stc_pruner", "pairing": "rank"},
            "allocator": {"name": "uniform"},
            "selector": _SALIENCY,
        },
    ),
    Method(
        "stc_pruner_paper",
        "as the paper prints it: the mean of cosine dissimilarities to a spatial and a temporal anchor",
        _STC,
        {
            "scorer": {"name": "stc_pruner", **_PRINTED, "frame_weight": 0.5, "memory_weight": 0.5},
            "allocator": {"name": "uniform"},
            "selector": _SALIENCY,
        },
    ),
    Method(
        "fastvid",
        "most attended tokens of every frame, the rest of a segment merged around dense tokens of anchor frames",
        _FASTVID,
        compressor={"name": "fastvid"},
    ),
    Method(
        "fastvid_released",
        "as fastvid, with the release's rounding down in every frame",
        _FASTVID,
        compressor={"name": "fastvid", "rounding": "frame"},
    ),
    Method(
        "fastvid_qwen",
        "fastvid for towers without a pooling head: frames compared by mean token, near duplicates get nothing",
        _FASTVID,
        compressor=_FASTVID_QWEN,
    ),
    Method(
        "fastvid_qwen_released",
        "as fastvid_qwen, with the release's rounding down in every frame",
        _FASTVID,
        compressor={**_FASTVID_QWEN, "rounding": "segment"},
    ),
    Method(
        "tome",
        "similar tokens of every frame merge in pairs, pass by pass",
        _TOME,
        {"allocator": {"name": "uniform"}, "selector": {"name": "tome"}},
    ),
    Method(
        "tome_temporal",
        "tokens merge into similar ones of the frame before, the most similar pairs of the video first",
        _TOME,
        {"selector": {"name": "tome_temporal"}},
    ),
    Method(
        "holitom",
        "what stands still is averaged over time and merged around dense tokens; of the rest the most attended",
        _HOLITOM,
        compressor={"name": "holitom"},
    ),
    Method(
        "holitom_released",
        "as holitom, with every frame's budget rounded up as in the release",
        _HOLITOM,
        compressor={"name": "holitom", "rounding": "up"},
    ),
    Method(
        "flashvid",
        "diverse attended tokens of every frame, the rest merged into trees along time and around dense tokens",
        _FLASHVID,
        compressor={"name": "flashvid"},
    ),
    Method(
        "flashvid_released",
        "as flashvid, with the release's larger budget, rounding and weights of long trees",
        _FLASHVID,
        compressor={"name": "flashvid", "expansion": 1.25, "rounding": "up"},
    ),
    Method(
        "flashvid_paper",
        "flashvid whose selection also looks for tokens relevant to their segment",
        _FLASHVID,
        compressor={"name": "flashvid", "selection": "attention_event"},
    ),
    Method(
        "sttm",
        "a quadtree of alike tokens per frame, its nodes united over time, as fine as the budget allows",
        _STTM,
        compressor={"name": "sttm"},
    ),
    Method(
        "sttm_released",
        "as sttm, with the release's thresholds instead of a budget",
        _STTM,
        compressor={"name": "sttm", "threshold": 0.85, "temporal": 0.8, "incomplete": "first"},
    ),
    Method(
        "chain",
        "two methods one after the other, each with its share of the budget: vidcom2, then tome",
        "composition",
        compressor={"name": "chain"},
    ),
    Method(
        "prunevid",
        "what stays alike in a scene is averaged over time, and every frame's rest around dense tokens",
        _PRUNEVID,
        compressor={"name": "prunevid"},
    ),
    Method("random", "tokens at random over the whole video", _BASELINE, {"selector": {"name": "random"}}),
    Method("stride", "every n-th token of the whole video", _BASELINE, {"selector": {"name": "stride"}}),
    Method(
        "one_per_block",
        "one random token of each block of every frame's grid",
        _BASELINE,
        {"allocator": {"name": "uniform"}, "selector": {"name": "one_per_block"}},
    ),
    Method(
        "average_pool",
        "the mean of each block of every frame's grid",
        _BASELINE,
        {
            "allocator": {"name": "uniform"},
            "selector": {"name": "one_per_block", "choice": "centre"},
            "merger": {"name": "average_pool"},
        },
    ),
    Method(
        "frame_subsample",
        "evenly spaced frames, whole",
        _BASELINE,
        {"allocator": {"name": "frame_subsample"}, "selector": {"name": "stride"}},
    ),
)

for preset in PRESETS:
    add_method(preset)
