"""The engine: names turned into parts, the step, the loop, evaluation, checkpoints, launching."""
