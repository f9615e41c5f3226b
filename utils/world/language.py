"""Everything that is said in the world, as data: problems, facts, the student's words and the tutor's.

The generator draws from these tables and the oracle reads by them, so a sentence means the same to both. A row is
`kind | sentence | sentence ...`; a kind may go over several rows. Names in braces are filled in for each problem.
"""


def _table(rows: str) -> dict[str, tuple[str, ...]]:
    table: dict[str, tuple[str, ...]] = {}
    for row in rows.strip().splitlines():
        kind, *texts = row.split(" | ")
        table[kind] = (*table.get(kind, ()), *texts)
    return table


STATES = ("right", "wrong", "partial", "open", "off")  # of the student's turn; open: no idea, or asks for help
SYMBOL_WORDS = {"+": "plus", "-": "minus", "x": "times"}

# What stands in a prompt; `opener` is the tutor's first turn when there are two rounds.
STUDENT = _table("""
system | You are a tutor. Guide the student and do not tell the answer.
system | You are a kind tutor. Give a hint and ask a question. | Help the student to find the answer.
greeting | Hi! | Hello! | This is for tomorrow. | I am at home. | Here is my task.
ask | What is {topic}? | I have to find {topic}. | My homework asks for {topic}. | We do {topic} today.
ask | The task is {topic}. | Now comes {topic}.
opener | What do you think? | What is your first idea? | How would you start?
claim | I think it is {claim}. | Is it {claim}? | My answer is {claim}. | I got {claim}. | It must be {claim}.
claim | I would say {claim}.
partial_number | I know it is more than {low}. | I am sure it is more than {low}. | It is less than {high}, I know.
partial_word | I know it starts with {letter}. | It starts with {letter}, I know. | I am sure it starts with {letter}.
open | I do not know. | I have no idea. | I am stuck. | I forgot it. | Can you help me? | Can you give me a hint?
open | How do I start? | Can you just tell me the answer?
off | I like football more. | When is lunch? | My dog ate my pencil. | It is raining outside. | Do you have a cat?
off | I want to go home.
""")

# What the tutor says. check and hint (below) complete the kinds.
TUTOR = _table("""
confirm | Yes, {claim} is right! | That is right! | Correct, {claim} it is. | Exactly, well done!
confirm | {claim} is correct, nice work!
reject | Not quite. | {claim} is not right yet. | That is not quite it. | Hmm, {claim} does not fit.
reject | Good try, but {claim} is not it.
partly | Part of that is right. | That is a good start. | You are on the right track. | So far so good.
open | No problem, let us look at {topic} together. | That is fine, we can find {topic} together.
open | I am happy to help with {topic}.
redirect | Let us come back to {topic}. | We can talk about that later, now back to {topic}.
redirect | That sounds fun, but first we finish {topic}.
curt_confirm | Yes. | Right.
curt_reject | No. | Wrong.
praise | Thank you for thinking about it. | I like that you keep going. | You are doing well. | You can do this!
generic | Think about it step by step. | Try to draw a picture. | Look at the question again.
again | What do you get now? | Can you try again? | Where does that take you? | What is your next idea?
again | Do you want to try it that way?
explain | How did you find it? | Can you tell me why? | How would you show it to a friend? | Do you want a harder one?
filler | There are many things to learn in school. | I have been a tutor for a long time.
filler | Some people find this hard and some people find this easy. | My own teacher said the same thing to me.
filler | We could talk about this all day long.
rude | This is really easy. | You should know this by now. | Please do not waste my time.
tell | The answer is {answer}. | It is {answer}, just write that down. | {topic} is {answer}.
""")

# No hint and no check may contain the answer of any problem (a test holds this).
HINTS = _table("""
sum | Start at {big} and count on {small} more steps.
sum | Use the double {small} + {small} = {double} and count on. | Swap it round, {b} + {a} is just as much.
difference | Start at {a} and count back {b} steps. | Start at {b} and count up to {a}.
difference | Think what you must add to {b} to reach {a}.
product | Think of {a} groups of {b}. | Count up in steps of {b}, {a} times.
product | Take {fewer} x {b} = {less} and add one more {b}.
number | It is more than {low} and less than {high}.
word | It starts with {letter}. | It has {length} letters.
""")

CHECKS = _table("""
sum | You can check it by taking {b} away again. | You can check it by adding {b} and {a}.
difference | You can check it by adding {b} again. | You can check it by counting up from {b}.
product | You can check it by making {a} groups. | You can check it by adding {b} again and again.
number | You can check it in your book. | You can check it with a picture.
word | You can check it in your book. | You can check it by writing it down.
""")

# topic | answer | wrong answers | clues that do not name the answer
FACTS = _table("""
the capital of France | Paris | Lyon, Rome | The Eiffel Tower stands there. | The river Seine runs through it.
the capital of Italy | Rome | Milan, Paris | The Colosseum stands there. | All roads lead to it.
the capital of Japan | Tokyo | Kyoto, Osaka | It was once called Edo. | It lies on a wide bay in the east.
the number of legs of a spider | 8 | 6, 10 | It has 4 legs on each side. | It is more than an ant has.
the number of legs of an ant | 6 | 8, 4 | It has 3 legs on each side. | All insects have as many.
the number of days in a week | 7 | 5, 6 | Say their names from Monday on. | The weekend counts too.
the number of months in a year | 12 | 10, 11 | Say their names from January on. | A clock face shows as many numbers.
the number of sides of a triangle | 3 | 4, 5 | Count its corners. | It is one less than a square has.
the colour that blue and yellow make | green | purple, brown | Grass has it. | A frog has it.
the colour that red and yellow make | orange | pink, brown | A carrot has it. | It is also a fruit.
the name of a young cat | kitten | puppy, cub | It likes milk and wool. | It rhymes with mitten.
the name of a young dog | puppy | kitten, foal | It barks a little. | It ends like happy.
""")
