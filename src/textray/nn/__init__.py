"""Building blocks of the networks: tensors in, tensors out."""
