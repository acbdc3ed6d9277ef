"""One run: from settings to parties, rounds and a record."""
