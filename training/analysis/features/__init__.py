"""Feature maps of one photo, and what one of its pixels attends to."""
