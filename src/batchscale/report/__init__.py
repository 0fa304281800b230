"""Records -> tables and figures; computes nothing, never imports torch."""
