"""What can go wrong in front of a user."""


class UserError(Exception):
    """A fault of input, settings or surroundings: its text is one clear line, the command ends with code 2."""
