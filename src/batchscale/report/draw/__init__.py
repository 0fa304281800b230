"""Figures as SVG."""

from batchscale.system.caches import place_fonts

place_fonts()  # before any file of this folder imports matplotlib
