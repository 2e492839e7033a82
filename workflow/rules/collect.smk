rule collect:
    # The store is followed through its manifest: Snakemake doesn't look into folders.
    input:
        collection,
    output:
        demos=directory(DEMOS[0]),
        manifest=DEMOS[1],
    log:
        "logs/{task}/collect.log",
    benchmark:
        "logs/{task}/collect.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    threads: threads_of("collect")
    resources:
        mem_mb=mem_mb_of("collect"),
        runtime=runtime_of("collect"),
    params:
        settings=slice_of("collect"),
        source=source_of("collect"),
        options=waiting_options,
    shell:
        "bmd-pipeline collect --task {wildcards.task:q} {params.options:q} 2>&1 | tee -i {log:q}"
