rule discover:
    input:
        policy=pipeline.policy,
        demos=pipeline.discover_demos,
    output:
        paths.modes,
    log:
        f"{paths.logs}/discover-seed{{seed}}.log",
    benchmark:
        f"{paths.logs}/discover-seed{{seed}}.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    threads: pipeline.threads("discover")
    resources:
        mem_mb=pipeline.mem_mb("discover"),
        runtime=pipeline.runtime("discover"),
        gpu=pipeline.gpu("discover"),
    params:
        settings=pipeline.stage_params("discover"),
        source=pipeline.source("discover"),
        demos=pipeline.discover_own_demos,
        options=pipeline.resumable("discover"),
    shell:
        "bmd-pipeline discover --task {wildcards.task:q} --seed {wildcards.seed:q}"
        " {params.options:q} 2>&1 | tee -i {log:q}"
