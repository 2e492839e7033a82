rule compare:
    input:
        evaluations=weighed_evaluations,
        tables=beside(weighed_evaluations, "episodes.parquet"),
    output:
        "results/{task}/compare.json",
        "results/{task}/compare.parquet",
    log:
        "logs/{task}/compare.log",
    benchmark:
        "logs/{task}/compare.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    resources:
        mem_mb=mem_mb_of("compare"),
        runtime=runtime_of("compare"),
    params:
        settings=slice_of("compare"),
        source=source_of("compare"),
        options=options,
    shell:
        "bmd-pipeline compare --task {wildcards.task:q} {input.evaluations:q} {params.options:q} 2>&1 | tee -i {log:q}"
