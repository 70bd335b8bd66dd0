"""Grids of settings and seeds: planned, run and tabulated."""
