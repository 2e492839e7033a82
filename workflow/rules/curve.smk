rule curve:
    # Not part of the summary: it judges many snapshots, which only a run with finetune.snapshot_interval keeps.
    input:
        base=files(*POLICY),
        tuned=lambda wildcards: files(*TUNED)(wildcards) + modes_of(wildcards, wildcards.method),
    output:
        "results/{task}/{method}/seed{seed}/curve.json",
    log:
        "logs/{task}/curve-{method}-seed{seed}.log",
    benchmark:
        "logs/{task}/curve-{method}-seed{seed}.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    threads: threads_of("evaluate")
    resources:
        mem_mb=mem_mb_of("curve"),
        runtime=runtime_of("curve"),
        gpu=gpu_of("curve"),
    params:
        settings=slice_of("curve"),
        source=source_of("curve"),
        options=options,
    shell:
        "bmd-pipeline curve --task {wildcards.task:q} --method {wildcards.method:q} --seed {wildcards.seed:q}"
        " {params.options:q} 2>&1 | tee -i {log:q}"
