"""What is made from the source itself: reference pages and pictures. `python -m scripts.NAME [--check]`."""
