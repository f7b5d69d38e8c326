"""How fast the project is, against others that do the same work: `make bench`."""
