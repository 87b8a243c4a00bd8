"""Unpacking: the archives that corpora come in, none of which is trusted. Needs nothing else of pipelines.

commands.py         the command ``unpack``
unpack.py           an archive becomes files in a folder, all of them or none
stream_archive.py   a packed tar becomes one that is read as it is
archives.py         the law that both obey: which names a member may have, and how much it may hold
tars.py, zips.py, sevenzip.py, parquets.py    one room a kind of archive
stage.py            where the files lie until all of them are right
"""
