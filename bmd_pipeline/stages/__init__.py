"""The stages, a function each.

What most of them take: `config` is the run, `policy`, `modes` and `finetuned` are the folders of what earlier stages
made, `seed` says which repetition this is, `num_workers` counts simulator processes, on which no result depends,
`reporter` takes what people read, and `stop` says whether somebody asked the stage to stop. `output` is written last
where it is a file, and its `run.json` last where it is a folder.
"""
