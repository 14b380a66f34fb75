"""Talking to a running machine: JSON lines on a UNIX socket, server and client."""
