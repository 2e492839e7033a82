# Base policies side by side: <Task>-base<k> is the task with root seed k, made from demonstrations on.
rule pool:
    input:
        evaluations=pooled_evaluations,
        tables=beside(pooled_evaluations, "episodes.parquet"),
    output:
        "results/{task}/pool.json",
    log:
        "logs/{task}/pool.log",
    benchmark:
        "logs/{task}/pool.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    resources:
        mem_mb=mem_mb_of("pool"),
        runtime=runtime_of("pool"),
    params:
        settings=slice_of("pool"),
        source=source_of("pool"),
        options=options,
    shell:
        "bmd-pipeline pool --task {wildcards.task:q} {params.options:q} 2>&1 | tee -i {log:q}"
