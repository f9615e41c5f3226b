"""The one error that is the user's to mend: shown as a single line, exit code 2, no traceback."""

import errno

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UserError(Exception):
    """Something a person gave is wrong. The message says what was found, what was expected and what to do.

    `on_this_rank` marks an error that only this process met (a full disk, say); all others are met by every rank
    alike, and rank 0 alone prints them.
    """

    code = 2  # the program's exit code

    def __init__(self, message: str, on_this_rank: bool = False) -> None:
        super().__init__(" ".join(str(message).split()))
        self.on_this_rank = on_this_rank


class TryAgainError(UserError):
    """Nothing given is wrong, but a server keeps refusing: the same command may succeed later."""

    code = 3


def write_failure(error: Exception) -> str:
    """Return why a file could not be written, and what to do about it. An error without a number (torch.save and
    safetensors raise such) may be a full disk."""
    reason = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), type(error).__name__)
    if getattr(error, "errno", None) in (None, *FULL):
        return f"{reason}; is the disk full? Free some space, or give another folder"
    return f"{reason}; give a place that can be written"
