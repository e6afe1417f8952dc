"""Ours beside others, each command its own file or folder."""
