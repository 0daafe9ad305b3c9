"""Scores of labels against truth, classical baselines, and partition equality."""
