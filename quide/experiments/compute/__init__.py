"""What computes the values of records, a module a family of measurements; imported when there is one to make."""
