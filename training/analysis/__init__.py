"""What a trained network looks at, where it breaks, and a report that shows it."""
