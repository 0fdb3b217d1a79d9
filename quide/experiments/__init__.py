"""The measured experiments: what is run, the records that runs leave, and what the paper states."""
