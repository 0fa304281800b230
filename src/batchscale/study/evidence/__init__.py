"""Runs turned into what a study compares: numbers, curves, their spread over seeds, and how sure a difference is."""
