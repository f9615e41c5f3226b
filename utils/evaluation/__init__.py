"""Evaluate models: win rates with their uncertainty, from ratings, rankings and judged records."""
