"""What a person has already, read into one description: pictures in folders, a metadata.csv, or tables of vectors."""
