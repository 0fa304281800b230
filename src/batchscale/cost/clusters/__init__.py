"""Clusters as files, and the links of their hosts."""
