"""Scores: what a score is, as pure functions of answers. No torch, no dataset, no model."""
