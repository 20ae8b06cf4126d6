"""Which sessions an area concerns, which areas hold a place, and what a filter lets through; all of it in columns."""
