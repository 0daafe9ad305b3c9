"""micro-sam's automatic 3D segmentation of the first slices of a stack; run in micro-sam's environment.

python segment_em.py <image.tif> <slices> <checkpoint> <labels.npy>
"""

import sys

import numpy as np
import tifffile
from micro_sam.automatic_segmentation import get_predictor_and_segmenter
from micro_sam.multi_dimensional_segmentation import automatic_3d_segmentation

image, slices, checkpoint, output = sys.argv[1:]
volume = tifffile.imread(image)[: int(slices)]
predictor, segmenter = get_predictor_and_segmenter(
    "vit_b", checkpoint=checkpoint, device="cpu", segmentation_mode="ais"
)
labels = automatic_3d_segmentation(volume, predictor, segmenter, verbose=False)
np.save(output, labels)
