"""Strong and weak scaling over logical workers: what becomes of loss and score, whatever the machine."""
