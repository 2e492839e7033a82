rule validation:
    # Whether the discovered modes are real. Nothing is trained: the frozen policy plays, with the modes of every seed.
    input:
        base=files(*POLICY),
        modes=modes_of_every_seed,
    output:
        "results/{task}/modes/validation.json",
    log:
        "logs/{task}/validation.log",
    benchmark:
        "logs/{task}/validation.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    threads: threads_of("evaluate")
    resources:
        mem_mb=mem_mb_of("validation"),
        runtime=runtime_of("validation"),
        gpu=gpu_of("validation"),
    params:
        settings=slice_of("validation"),
        source=source_of("validation"),
        options=options,
    shell:
        "bmd-pipeline validation --task {wildcards.task:q} {params.options:q} 2>&1 | tee -i {log:q}"
