"""Pushing: a dataset goes to the Hugging Face Hub, checked first, in commits that a killed push goes on from.

The command     commands.py is ``push``
What goes       parcel.py: the files, or those of some corpora; checks.py: may it, is it whole, does `datasets` read it
The Hub         upload.py (what is missing, in commits, dataset.json last) > writer.py (its library, for who writes)
"""
