"""Runs of a study: its folder, its crew, its records."""
