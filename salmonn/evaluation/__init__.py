"""Evaluation: how answers come to be, file by file, and what is drawn of their scores. What a score is: scoring."""
