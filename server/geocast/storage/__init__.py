"""What the parts of geocast that store something have in common: files of SQLite, and writing behind the event loop."""
