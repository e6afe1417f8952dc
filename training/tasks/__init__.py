"""What a run trains: segmentation or classification, and the weights it starts from."""
