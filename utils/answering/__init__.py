"""Run a trained model over a file of prompts or in a conversation, for chatbot.py, rerank.py and the evaluators.

inference_model.py  a model with its tokenizer and template: answers prompts, scores answers
files.py            the files that --data_path and --output_path name
rows.py             the rows of these files: prompts and their answers
jobs.py             a job over rows: sampling, scoring, and what of its settings decides its output
output.py           one output file, computed by several processes and resumed after a stop
chat/               a conversation in the terminal
"""
