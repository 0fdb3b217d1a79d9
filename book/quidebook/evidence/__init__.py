"""What the pages draw from: the paper's numbers and our records, by condition and width."""
