"""`anneal preview`: the exact tokens of a job's first rows, with the trained ones marked.

    view.py      what is shown, as plain data: text segments with their ids and whether they are trained
    read.py      the first rows of each source, by the same functions that `prepare` uses
    terminal.py  for a terminal, with colour or without
    page.py      one self-contained HTML page
    kept.py      what stays with a job: both of these, bounded

Not here: reports over all rows, which need all rows read (`prepare`).
"""
