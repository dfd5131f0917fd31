"""Cache reusers: vision-tower work carried over from frame to frame (`compressors.base.CacheReuser`)."""

from compressors.cachers.stc import STC

__all__ = ["STC"]
