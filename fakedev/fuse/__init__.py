"""The /dev/fuse wire protocol, spoken directly: a sans-IO codec and session under a thin threaded server."""
