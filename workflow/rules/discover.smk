rule discover:
    input:
        policy=files(*POLICY),
        demos=ancient(taught_on),
    output:
        MODES,
    log:
        "logs/{task}/discover-seed{seed}.log",
    benchmark:
        "logs/{task}/discover-seed{seed}.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    threads: threads_of("discover")
    resources:
        mem_mb=mem_mb_of("discover"),
        runtime=runtime_of("discover"),
        gpu=gpu_of("discover"),
    params:
        settings=slice_of("discover"),
        source=source_of("discover"),
        brought=taught_on_brought,
        options=discover_options,
    shell:
        "bmd-pipeline discover --task {wildcards.task:q} --seed {wildcards.seed:q}"
        " {params.options:q} 2>&1 | tee -i {log:q}"
