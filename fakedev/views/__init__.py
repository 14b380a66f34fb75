"""What each file says and accepts, free of any file system protocol."""
