"""Groups of tokens on disk: built once per machine and content, read through memory maps.

part = DataPart(split="train", stage=1, kind="demonstrations", seed=42)
store = prepare(data, part, renderer, cache_dir)
store[0]  # a Group
"""

from utils.tokens.store.folder import TokenStore
from utils.tokens.store.preparing import DataPart, TokenSettings, build, prepare
from utils.tokens.templates import coloured

__all__ = ["DataPart", "TokenSettings", "TokenStore", "build", "coloured", "prepare"]
