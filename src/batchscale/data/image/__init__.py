"""Whole images with one class, in memory: the official files, digits, made-up scenes."""
