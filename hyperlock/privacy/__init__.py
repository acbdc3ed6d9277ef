"""Differential privacy: clipping and rounding on the grid, shares of noise, what a run spends, and
attacks that would notice if it were not so."""
