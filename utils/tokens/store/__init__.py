"""Groups of tokens on disk: built once per machine and content, read through memory maps.

part = Part(split="train", stage=1, kind="demonstrations", seed=42)
store = prepare(data, part, renderer, cache_dir)
store[0]  # a Group
"""

from utils.tokens.store.folder import TokenStore
from utils.tokens.store.preparing import Part, TokenSettings, build, prepare
from utils.tokens.templates import coloured

__all__ = ["Part", "TokenSettings", "TokenStore", "build", "coloured", "prepare"]
