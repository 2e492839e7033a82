rule pretrain:
    input:
        collected_files,
        ancient(brought_files),
    output:
        POLICY,
    log:
        "logs/{task}/pretrain.log",
    benchmark:
        "logs/{task}/pretrain.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    threads: threads_of("pretrain")
    resources:
        mem_mb=mem_mb_of("pretrain"),
        runtime=runtime_of("pretrain"),
        gpu=gpu_of("pretrain"),
    params:
        settings=slice_of("pretrain"),
        source=source_of("pretrain"),
        options=pretrain_options,
        brought=brought,
    shell:
        "bmd-pipeline pretrain --task {wildcards.task:q} {params.options:q} 2>&1 | tee -i {log:q}"
