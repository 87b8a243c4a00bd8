"""One pair of files a corpus: NAME.toml holds the published facts, NAME.py reads the published tree."""
