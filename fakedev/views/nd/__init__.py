"""The files of persistent memory, device-dax and CXL."""
