"""micro-sam's slice merging, array to array; run in micro-sam's environment.

    python merge_slices.py <labels.npy> <merged.npy>

Prints CPU seconds of the merge alone and the growth of the process's peak memory in MiB.
"""

import json
import resource
import sys
import time

import numpy as np
from micro_sam.multi_dimensional_segmentation import merge_instance_segmentation_3d

labels = np.load(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.process_time()
merged = merge_instance_segmentation_3d(labels, verbose=False)
seconds = time.process_time() - started
growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
np.save(sys.argv[2], merged)
print(json.dumps({"cpu": seconds, "growth_mb": growth / 1024}))
