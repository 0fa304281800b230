"""Any entries against any others."""
