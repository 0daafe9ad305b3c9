"""The report of a run: one HTML file that says what ran, on what, and what came of it."""
