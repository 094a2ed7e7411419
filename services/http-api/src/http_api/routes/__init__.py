"""The routes, one module for each resource; thin: read the request, ask, present."""
