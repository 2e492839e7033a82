# Base policies side by side: <Task>-base<k> is the task with root seed k, made from demonstrations on.
rule pool:
    input:
        evaluations=pipeline.pool_inputs,
        tables=pipeline.beside(pipeline.pool_inputs, EPISODES_FILE),
    output:
        f"{paths.results}/pool.json",
    log:
        f"{paths.logs}/pool.log",
    benchmark:
        f"{paths.logs}/pool.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    resources:
        mem_mb=pipeline.mem_mb("pool"),
        runtime=pipeline.runtime("pool"),
    params:
        settings=pipeline.stage_params("pool"),
        source=pipeline.source("pool"),
        options=pipeline.options("pool"),
    shell:
        "bmd-pipeline pool --task {wildcards.task:q} {params.options:q} 2>&1 | tee -i {log:q}"
