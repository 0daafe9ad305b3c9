"""From one tile's image to its fragments: pure functions, no files and no blocks."""
