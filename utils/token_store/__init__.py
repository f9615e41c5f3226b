"""Groups of tokens on disk: built once per machine and content, read through memory maps.

store = prepare(data, "train", stage=1, kind="demonstrations", renderer=renderer, cache_dir=cache_dir, seed=42)
store[0]  # a Group
"""

from utils.templates import coloured
from utils.token_store.folder import TokenStore
from utils.token_store.preparing import build, prepare

__all__ = ["TokenStore", "build", "coloured", "prepare"]
