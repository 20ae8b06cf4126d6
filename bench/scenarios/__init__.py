"""The scenarios of the bench, one module for each subcommand."""
