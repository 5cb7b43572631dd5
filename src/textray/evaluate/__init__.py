"""Scores of bundles on data sets, with the code that users run."""
