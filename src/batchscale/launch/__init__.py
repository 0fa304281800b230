"""This machine's processes: launching, signals, cores."""
