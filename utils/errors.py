"""The one error that is the user's to mend: shown as a single line, exit code 2, no traceback."""


class UserError(Exception):
    """Something a person gave is wrong. The message says what was found, what was expected and what to do.

    `on_this_rank` marks an error that only this process met (a full disk, say); all others are met by every rank
    alike, and rank 0 alone prints them.
    """

    def __init__(self, message: str, on_this_rank: bool = False) -> None:
        super().__init__(" ".join(str(message).split()))
        self.on_this_rank = on_this_rank
