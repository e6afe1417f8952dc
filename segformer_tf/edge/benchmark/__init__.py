"""`segformer benchmark`: files timed side by side, the hardware, and the tables and picture of the result."""
