"""What is asked: the schema of every setting, and what it must be."""
