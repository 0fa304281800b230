"""Measures of a run's state at a step: opened, never changed; each answer is findings."""
