"""Answers of a language model: prompts in as token ids, completions out, whatever computes them.

generate.py          answers to any number of prompts, batch by batch
request.py           what a back end is given and what it returns
sampling.py          settings of drawing tokens, and how a token is drawn
stopping.py          stop tokens and stop strings
backends.py          which back end answers, and why

hf.py                transformers' `model.generate`, the reference; beams and sharded weights go here
shared.py            the default: each prompt is read once for all its answers, finished answers leave the batch
vllm.py              the vllm package, for a model in a folder

shared_attention.py  attention over a prompt and its answers, for shared.py
shared_cache.py      the keys and values that it reads: each prompt's once, for all its answers
slots.py             the same keys and values in tensors that stay where they are, for CUDA graphs
graphs.py            a decoding step, computed or replayed as a CUDA graph
"""
