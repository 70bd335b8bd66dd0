"""The error of a command or a file that its user can put right."""


class UserError(ValueError):
    """A mistake on the command line or an unusable file; its message is one sentence."""
