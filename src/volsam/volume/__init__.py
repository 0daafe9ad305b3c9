"""Volumes: images in, labels out. Open with `volsam.volume.source.open_volume`."""
