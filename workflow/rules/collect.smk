rule collect:
    # The store is followed through its manifest: Snakemake doesn't look into folders.
    input:
        pipeline.collect_inputs,
    output:
        demos=directory(paths.demos[0]),
        manifest=paths.demos[1],
    log:
        f"{paths.logs}/collect.log",
    benchmark:
        f"{paths.logs}/collect.tsv"
    wildcard_constraints:
        task=pipeline.collectable(),
    conda:
        "../../envs/bmd-pipeline.yaml"
    threads: pipeline.threads("collect")
    resources:
        mem_mb=pipeline.mem_mb("collect"),
        runtime=pipeline.runtime("collect"),
    params:
        settings=pipeline.stage_params("collect"),
        source=pipeline.source("collect"),
        options=pipeline.waiting("collect"),
    shell:
        "bmd-pipeline collect --task {wildcards.task:q} {params.options:q} 2>&1 | tee -i {log:q}"
