"""Fingerprints of published splits, so that a table saved in another order gives the same cut."""
