"""Which devices and machines train."""
