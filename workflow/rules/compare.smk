rule compare:
    input:
        evaluations=pipeline.evaluations("compare"),
        tables=pipeline.beside(pipeline.evaluations("compare"), EPISODES_FILE),
    output:
        f"{paths.results}/compare.json",
    log:
        f"{paths.logs}/compare.log",
    benchmark:
        f"{paths.logs}/compare.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    resources:
        mem_mb=pipeline.mem_mb("compare"),
        runtime=pipeline.runtime("compare"),
    params:
        settings=pipeline.stage_params("compare"),
        source=pipeline.source("compare"),
        options=pipeline.options("compare"),
    shell:
        "bmd-pipeline compare --task {wildcards.task:q} {input.evaluations:q} {params.options:q} 2>&1 | tee -i {log:q}"
