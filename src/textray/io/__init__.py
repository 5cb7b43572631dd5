"""Files in and out: pictures read by content, results written atomically."""
