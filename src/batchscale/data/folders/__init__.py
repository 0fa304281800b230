"""Images in folders, or in the packed form made of them: millions of files, decoded as they are used."""
