"""The libvirt driver: an instance is a domain of libvirt, made from a template or adopted."""
