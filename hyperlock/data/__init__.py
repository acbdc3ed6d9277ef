"""Datasets and their split over clients."""
