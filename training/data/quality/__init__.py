"""`segformer data check`: what a careful colleague would look at before a training."""
