"""Training as Darknet's, with a mask enforced."""
