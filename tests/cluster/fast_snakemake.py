"""Snakemake that asks the batch system every second; its plugins otherwise wait longer and longer.

For tests only: the submitting process is changed, not the jobs it submits.
"""

from __future__ import annotations

import sys

import snakemake_executor_plugin_slurm
from snakemake.cli import main
from snakemake_executor_plugin_lsf import common_settings
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

# The test cluster has no accounting, and the plugin would turn to it when squeue fails once.
snakemake_executor_plugin_slurm.is_query_tool_available = lambda tool: tool != "sacct"
common_settings.init_seconds_before_status_checks = 1
RemoteExecutor.next_seconds_between_status_checks = property(
    lambda self: 1, lambda self, seconds: None
)

if __name__ == "__main__":
    sys.exit(main())
