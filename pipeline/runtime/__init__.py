"""What any program of files, processes and signals needs, and nothing about this project's subject."""
