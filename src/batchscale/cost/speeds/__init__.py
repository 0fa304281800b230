"""Speeds of more devices from few measured points: the small form, its priors, and how well both predict."""
