"""One exported file, unchanged, in other people's programs: `python -m benchmarks.programs`."""
