"""Image sets, questions and stories: got, proven by checksum, and read."""
