"""A page that runs an exported file in the browser, served on this machine alone."""
