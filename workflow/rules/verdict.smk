rule verdict:
    input:
        evaluations=pipeline.evaluations("verdict"),
        tables=pipeline.beside(pipeline.evaluations("verdict"), EPISODES_FILE),
    output:
        f"{paths.results}/verdict.json",
    log:
        f"{paths.logs}/verdict.log",
    benchmark:
        f"{paths.logs}/verdict.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    resources:
        mem_mb=pipeline.mem_mb("verdict"),
        runtime=pipeline.runtime("verdict"),
    params:
        settings=pipeline.stage_params("verdict"),
        source=pipeline.source("verdict"),
        options=pipeline.options("verdict"),
    shell:
        "bmd-pipeline verdict --task {wildcards.task:q} {input.evaluations:q} {params.options:q} 2>&1 | tee -i {log:q}"
