"""Federated learning with homomorphically encrypted updates."""

__version__ = "0.1.0"
