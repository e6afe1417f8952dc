"""Videos and cameras in, overlay and mask videos out."""
