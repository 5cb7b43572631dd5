"""From a published checkpoint to a bundle: the one place that reads pickle, in a process of its own."""
