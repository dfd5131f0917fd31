"""The embedded model: its clips and questions, its training, and the check of its accuracy."""
