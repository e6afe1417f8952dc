"""`segformer report`: one page that opens without a network, on what a model is and does."""
