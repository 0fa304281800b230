"""What the operating system, a file system or a shell may lack or refuse, and what stands in for it. No torch."""
