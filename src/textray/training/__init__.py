"""Losses, tasks and the trainer's command line."""
