"""The demo and the data it ships."""
