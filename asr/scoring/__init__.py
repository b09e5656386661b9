"""Word and character error rates, their significance and their report."""
