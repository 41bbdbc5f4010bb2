"""What monitoring looks at."""
