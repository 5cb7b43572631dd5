"""The methods that the papers compare against, one a file."""
