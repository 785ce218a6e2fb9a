"""The one exception whose message is for the reader of a terminal."""


class Problem(Exception):
    """Something that is wrong with a case, a file or a request."""
