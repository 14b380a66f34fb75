"""Devices: what answers behind the addresses of a machine."""
