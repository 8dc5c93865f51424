"""Training as Darknet's, with pruned channels held."""
