"""From checkpoints, ours and published ones, to bundles."""
