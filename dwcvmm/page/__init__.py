"""One HTML page of many results, and the pictures in it."""
