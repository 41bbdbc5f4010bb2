"""Health checks of services, and repairs before they start."""
