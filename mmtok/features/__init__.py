"""Frozen picture networks for perceptual losses and metrics; their weights come from the user's files."""
