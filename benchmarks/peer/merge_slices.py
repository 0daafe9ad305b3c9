"""micro-sam's slice merging, array to array; run in micro-sam's environment.

    python merge_slices.py <labels.npy> <merged.npy>

Prints CPU seconds of the merge alone and the growth of the process's peak memory in MiB.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from micro_sam.multi_dimensional_segmentation import merge_instance_segmentation_3d


def peak_mb():
    """Largest memory of this process, as `benchmarks.merging` reads its own."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(s.split()[1]) / 1024 for s in status if s.startswith("VmHWM"))


labels = np.load(sys.argv[1])
before = peak_mb()
started = time.process_time()
merged = merge_instance_segmentation_3d(labels, verbose=False)
seconds = time.process_time() - started
growth = peak_mb() - before
np.save(sys.argv[2], merged)
print(json.dumps({"cpu": seconds, "growth_mb": growth}))
