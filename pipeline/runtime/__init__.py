"""What any program with files, processes and signals needs; nothing here knows this project's subject."""
