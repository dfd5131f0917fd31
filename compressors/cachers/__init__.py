"""Cache reusers: vision-tower work carried over from frame to frame (`compressors.base.CacheReuser`)."""
