# The λ sweep: `finetune` and `evaluate` again at each point, with another regulariser. Demonstrations, policy and modes
# are those that the methods use.


rule sweep_finetune:
    input:
        policy=files(*POLICY),
        modes=files(*MODES),
    output:
        SWEPT_TUNED,
    log:
        "logs/{task}/sweep-finetune-{point}-seed{seed}.log",
    benchmark:
        "logs/{task}/sweep-finetune-{point}-seed{seed}.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    threads: threads_of("finetune")
    resources:
        mem_mb=mem_mb_of("finetune"),
        runtime=runtime_of("finetune"),
        gpu=gpu_of("finetune"),
    params:
        settings=swept_slice_of("finetune"),
        source=source_of("finetune"),
        options=resumable_options,
        point=point_options,
        folder=SWEPT,
    shell:
        "bmd-pipeline finetune --task {wildcards.task:q} --seed {wildcards.seed:q} --output {params.folder:q}"
        " {params.options:q} {params.point:q} 2>&1 | tee -i {log:q}"


rule sweep_evaluate:
    input:
        base=files(*POLICY),
        modes=files(*MODES),
        tuned=files(*SWEPT_TUNED),
    output:
        evaluation=f"{SWEPT}/eval.json",
        episodes=f"{SWEPT}/episodes.parquet",
        trajectories=[f"{SWEPT}/trajectories.{kind}" for kind in ("parquet", "png", "svg")],
    log:
        "logs/{task}/sweep-evaluate-{point}-seed{seed}.log",
    benchmark:
        "logs/{task}/sweep-evaluate-{point}-seed{seed}.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    threads: threads_of("evaluate")
    resources:
        mem_mb=mem_mb_of("evaluate"),
        runtime=runtime_of("evaluate"),
        gpu=gpu_of("evaluate"),
    params:
        settings=swept_slice_of("evaluate"),
        source=source_of("evaluate"),
        options=waiting_options,
        point=point_options,
        folder=SWEPT,
    shell:
        "bmd-pipeline evaluate --task {wildcards.task:q} --seed {wildcards.seed:q} --tuned {params.folder:q}"
        " --output {output.evaluation:q} {params.options:q} {params.point:q} 2>&1 | tee -i {log:q}"


rule sweep:
    input:
        swept_evaluations,
    output:
        "results/{task}/lambda/sweep.json",
        figure("results/{task}/lambda/sweep.png", "sweep"),
        "results/{task}/lambda/sweep.svg",
    log:
        "logs/{task}/sweep.log",
    benchmark:
        "logs/{task}/sweep.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    resources:
        mem_mb=mem_mb_of("sweep"),
        runtime=runtime_of("sweep"),
    params:
        settings=slice_of("sweep"),
        source=source_of("sweep"),
        options=options,
    shell:
        "bmd-pipeline sweep --task {wildcards.task:q} {params.options:q} 2>&1 | tee -i {log:q}"
