"""Storage that several packages use: SQLite files, writing in the background, and a Redis server."""
