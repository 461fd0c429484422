"""Elements: C runs them in a loop; Python decides what follows when the loop stops."""
