"""A student who is wrong, one who is right, and a good answer to the first."""

from utils.world.exchanges import Turn

WRONG = (Turn("user", "What is 4 + 3? I think it is 6."),)
RIGHT = (Turn("user", "What is 4 plus 3?"), Turn("assistant", "What do you think?"), Turn("user", "Is it 7?"))
GOOD = "Not quite. Start at 4 and count on 3 more steps. What do you get now?"
