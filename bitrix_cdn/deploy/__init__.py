"""Plans deploys and executes them."""
