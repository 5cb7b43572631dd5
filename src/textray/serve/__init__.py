"""Page and API over HTTP: `textray serve`."""
