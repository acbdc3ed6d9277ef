"""Across organisations: what a site and the coordinator have on their machines, and start there."""
