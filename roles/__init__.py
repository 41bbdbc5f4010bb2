"""What runs on the hosts, one module a service; `deploy.py` says which goes where."""
