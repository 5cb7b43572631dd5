"""The commands of `textray`, one file for each kind of user; nothing heavy is imported before a command runs."""
