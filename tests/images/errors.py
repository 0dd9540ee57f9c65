"""What keeps an image from being built."""


class ImagesError(Exception):
    """One line: what is missing, and how to mend it."""
