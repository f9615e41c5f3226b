"""A small world in which the truth is known: a tutor should guide a student rather than tell.

language    what can be said, as data
exchanges   a student's turn: drawn, written as messages, read back
teachers    a strong and a weak one
oracle      what an answer is worth, and noisy preferences with a known ceiling
tasks       coded turns, three tasks, critique and refinement
requests    a judge's request by its parts
judge       the oracle in words, as a language model replies
"""
