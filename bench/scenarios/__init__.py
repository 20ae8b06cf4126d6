"""What is measured: one module for each subcommand of `python -m bench`."""
