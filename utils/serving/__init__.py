"""What a server of chat models speaks, without the network.

apis      OpenAI's and Anthropic's shapes of requests, answers and errors
faults    what goes wrong, drawn reproducibly, and counts of what came in
"""
