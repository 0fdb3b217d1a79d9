"""Performance of QuIDE as ratios to its peers, measured beside each other in one run."""
