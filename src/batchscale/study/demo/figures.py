"""The demonstration's figures and table: a grid's."""

from __future__ import annotations

from batchscale.study.grid.figures import figures, tables

__all__ = ["figures", "tables"]
