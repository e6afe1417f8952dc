"""Tests of `segformer info`."""
