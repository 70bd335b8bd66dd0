"""Finished runs: read, drawn and judged."""
