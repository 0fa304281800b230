"""A run on disk: its folder, its lines, its result. Never imports torch."""

from batchscale.records.folder import RunFolder
from batchscale.records.lock import RunLock
from batchscale.records.result import Result, read_result
from batchscale.records.run import RunRecords
from batchscale.records.score import Score

__all__ = ["Result", "RunFolder", "RunLock", "RunRecords", "Score", "read_result"]
