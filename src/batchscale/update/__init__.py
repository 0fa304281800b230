"""The update: optimizers, schedules and scaling rules. Schedules never import torch."""
