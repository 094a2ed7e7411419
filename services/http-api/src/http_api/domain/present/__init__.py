"""From rows to ARM JSON, one module for each resource."""
