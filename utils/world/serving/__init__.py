"""A server of chat models over HTTP: what speaks is passed in, what goes wrong is drawn reproducibly.

apis      OpenAI's and Anthropic's shapes of requests, answers and errors
faults    what goes wrong, and counts of what came in
batches   OpenAI's files and batches, in memory
server    the routes; faults on the wire
"""
