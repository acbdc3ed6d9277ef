"""Encryption of integer vectors that can be added: schemes, their parameters, the grid and the
packing."""
