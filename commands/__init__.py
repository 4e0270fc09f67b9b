"""The commands of `mmssl`, one file per subject: each command parses, calls the library and prints."""
