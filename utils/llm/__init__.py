"""Ask language models behind an API: providers, the ledger of requests and replies, rate limits and retries."""
