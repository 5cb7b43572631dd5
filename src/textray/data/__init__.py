"""Data sets on disk: readers, splits, checks, the pixel cache and the synthetic film."""
