"""Images with masks: pairs of files, fields of many channels."""
