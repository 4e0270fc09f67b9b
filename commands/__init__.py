"""The commands of `mmssl`, one file per subject: each parses, calls the library and prints."""
