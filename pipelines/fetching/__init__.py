"""Fetching: what corpora publish comes below ROOT, and what is there so far. No build knows this folder.

The commands    commands.py is ``fetch``, with its plan.py and its live board.py; status.py is ``status``
File servers    fetch.py (all files, several hosts at a time) > download.py (one file) > exchange.py (one request);
                wanted.py is what they are asked for, part.py the file so far, sniff.py whether it is that file, and
                lock.py what it was the first time; hosts.py, addresses.py and line.py guard the connection
The Hub         hub_tasks.py (its corpora, as tasks on Ray) > hub.py (one corpus) > hub_client.py (its library)
Videos          videos.py (those of a corpus) > video_process.py (killed in time) > video_download.py (yt-dlp);
                video_list.py says which, video_audio.py cuts them, video_status.py names what became of each
By hand         adopt.py takes the copy that a person has got

Which files a corpus has and what became of each is in pipelines/items.py, because a scan reads that too.
"""
