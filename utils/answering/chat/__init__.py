"""A conversation with a model in the terminal.

conversation.py  questions and answers, one after another, and the commands between them
transcript.py    the conversation so far, and saving it as records
streaming.py     an answer on the screen while the model writes it
lines.py         lines from a keyboard, with arrow keys and history, or from a pipe
"""
