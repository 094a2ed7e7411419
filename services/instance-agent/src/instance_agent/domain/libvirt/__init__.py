"""What the libvirt driver makes of XML: domains, their metadata, templates."""
