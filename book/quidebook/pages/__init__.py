"""A module for each notebook, of the same name: its tables, figures and facts."""
