"""What a trained network looks at, and where it breaks."""
