"""The load kit: drives the release binary on loopback and prints figures. See ../README.md."""
