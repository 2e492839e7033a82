rule evaluate:
    input:
        base=files(*POLICY),
        tuned=evaluated_files,
    output:
        "results/{task}/{policy}/seed{seed}/eval.json",
        "results/{task}/{policy}/seed{seed}/episodes.parquet",
        "results/{task}/{policy}/seed{seed}/trajectories.parquet",
        "results/{task}/{policy}/seed{seed}/trajectories.png",
        "results/{task}/{policy}/seed{seed}/trajectories.svg",
    log:
        "logs/{task}/evaluate-{policy}-seed{seed}.log",
    benchmark:
        "logs/{task}/evaluate-{policy}-seed{seed}.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    threads: threads_of("evaluate")
    resources:
        mem_mb=mem_mb_of("evaluate"),
        runtime=runtime_of("evaluate"),
        gpu=gpu_of("evaluate"),
    params:
        settings=slice_of("evaluate"),
        source=source_of("evaluate"),
        options=waiting_options,
    shell:
        "bmd-pipeline evaluate --task {wildcards.task:q} --method {wildcards.policy:q} --seed {wildcards.seed:q}"
        " {params.options:q} 2>&1 | tee -i {log:q}"


rule summarise:
    input:
        evaluations=compared_evaluations,
        tables=beside(compared_evaluations, "episodes.parquet", "trajectories.parquet"),
    output:
        "results/{task}/eval.json",
        "results/{task}/episodes.parquet",
        "results/{task}/trajectories.parquet",
        figure("results/{task}/trajectories.png", "trajectories"),
        "results/{task}/trajectories.svg",
        figure("results/{task}/success_modes.png", "success_modes"),
        "results/{task}/success_modes.svg",
    log:
        "logs/{task}/summarise.log",
    benchmark:
        "logs/{task}/summarise.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    resources:
        mem_mb=mem_mb_of("summarise"),
        runtime=runtime_of("summarise"),
    params:
        settings=lambda wildcards: config_hash(settings(wildcards.task)),
        source=source_of("summarise"),
        options=options,
    shell:
        "bmd-pipeline summarise --task {wildcards.task:q} {input.evaluations:q} {params.options:q} 2>&1 | tee -i {log:q}"
