"""What a report says, as zones of the picture, and back to words."""
