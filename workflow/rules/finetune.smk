rule finetune:
    input:
        policy=files(*POLICY),
        modes=lambda wildcards: modes_of(wildcards, wildcards.method),
    output:
        TUNED,
    log:
        "logs/{task}/finetune-{method}-seed{seed}.log",
    benchmark:
        "logs/{task}/finetune-{method}-seed{seed}.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    threads: threads_of("finetune")
    resources:
        mem_mb=mem_mb_of("finetune"),
        runtime=runtime_of("finetune"),
        gpu=gpu_of("finetune"),
    params:
        settings=slice_of("finetune"),
        source=source_of("finetune"),
        options=resumable_options,
    shell:
        "bmd-pipeline finetune --task {wildcards.task:q} --method {wildcards.method:q} --seed {wildcards.seed:q}"
        " {params.options:q} 2>&1 | tee -i {log:q}"
