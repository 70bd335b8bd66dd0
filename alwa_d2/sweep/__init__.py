"""Grids of settings and seeds: read, planned, run here or on Slurm, and tabulated."""
