"""The step, the loop, and what is due after a step."""
