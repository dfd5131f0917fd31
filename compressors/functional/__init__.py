"""Pure functions on tensors that several methods share; they know nothing of parts or models."""
