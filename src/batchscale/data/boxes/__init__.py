"""Images with boxes, or with the labels that their boxes give."""
