"""Synthetic nuclei with known truth: the demo volume, test input and training slices."""
