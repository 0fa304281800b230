"""All-reduce through memory that the processes of a host share."""
