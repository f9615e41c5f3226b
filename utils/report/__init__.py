"""Write report.html: the results of a whole pipeline, its page and its charts."""
