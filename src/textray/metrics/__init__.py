"""Scores of masks with their estimator in the name, and intervals by patient. NumPy only."""
