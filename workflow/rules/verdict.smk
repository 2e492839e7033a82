rule verdict:
    input:
        evaluations=judged_evaluations,
        tables=beside(judged_evaluations, "episodes.parquet"),
    output:
        "results/{task}/verdict.json",
    log:
        "logs/{task}/verdict.log",
    benchmark:
        "logs/{task}/verdict.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    resources:
        mem_mb=mem_mb_of("verdict"),
        runtime=runtime_of("verdict"),
    params:
        settings=slice_of("verdict"),
        source=source_of("verdict"),
        options=options,
    shell:
        "bmd-pipeline verdict --task {wildcards.task:q} {input.evaluations:q} {params.options:q} 2>&1 | tee -i {log:q}"
