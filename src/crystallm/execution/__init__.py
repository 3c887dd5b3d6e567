"""Where work runs: this process, worker processes, a cluster, a device."""
