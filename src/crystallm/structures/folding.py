"""Clusters of one formula for the web server."""

from crystallm.structures.duplicates import cluster_record as fold_record

__all__ = ["fold_record"]
