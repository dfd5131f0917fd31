"""LLaVA-Video, of which transformers has no class: configuration, model, processor, and the adapter.

SigLIP tower, two-layer projector and Qwen2 are the library's; here are the pooling and the newlines of the release
(https://github.com/LLaVA-VL/LLaVA-NeXT), in all of its settings. `convert` turns its checkpoints into this layout.
"""

from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from adapters.llava_video.adapter import LlavaVideo
from adapters.llava_video.configuration import LlavaVideoConfig
from adapters.llava_video.modeling import LlavaVideoForConditionalGeneration, LlavaVideoModel
from adapters.llava_video.processing import LlavaVideoProcessor

AutoConfig.register(LlavaVideoConfig.model_type, LlavaVideoConfig, exist_ok=True)
AutoModelForImageTextToText.register(LlavaVideoConfig, LlavaVideoForConditionalGeneration, exist_ok=True)
AutoProcessor.register(LlavaVideoConfig, LlavaVideoProcessor, exist_ok=True)

__all__ = [
    "LlavaVideo",
    "LlavaVideoConfig",
    "LlavaVideoForConditionalGeneration",
    "LlavaVideoModel",
    "LlavaVideoProcessor",
]
