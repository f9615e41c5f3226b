"""Groups of tokens on disk: built once per machine and content, read through memory maps.

store = prepare(data, "train", stage=1, kind="demonstrations", renderer=renderer, cache_dir=cache_dir, seed=42)
store[0]  # a Group
"""

from utils.tokens.store.folder import TokenStore
from utils.tokens.store.preparing import build, prepare
from utils.tokens.templates import coloured

__all__ = ["TokenStore", "build", "coloured", "prepare"]
