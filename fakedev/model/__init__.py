"""The pure world: what every load, store, read, write, mmap, claim and release does."""
