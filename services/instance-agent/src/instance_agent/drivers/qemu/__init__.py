"""The qemu driver: an instance is a virtual machine, a QEMU process without any daemon."""
