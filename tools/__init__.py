"""Tools of the source tree that are not installed with the packages."""
