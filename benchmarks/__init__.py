"""What an access, a revoke and a start cost, side by side in one run: `make bench`."""
