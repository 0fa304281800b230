"""The seconds of a step by its parts: layers, buckets, all-reduces."""
