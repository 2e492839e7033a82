rule validation:
    # Whether the discovered modes are real. Nothing is trained: the frozen policy plays, with the modes of every seed.
    input:
        base=pipeline.policy,
        modes=pipeline.modes_of_every_seed,
    output:
        f"{paths.results}/modes/validation.json",
    log:
        f"{paths.logs}/validation.log",
    benchmark:
        f"{paths.logs}/validation.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    threads: pipeline.threads("evaluate")
    resources:
        mem_mb=pipeline.mem_mb("validation"),
        runtime=pipeline.runtime("validation"),
        gpu=pipeline.gpu("validation"),
    params:
        settings=pipeline.stage_params("validation"),
        source=pipeline.source("validation"),
        options=pipeline.options("validation"),
    shell:
        "bmd-pipeline validation --task {wildcards.task:q} {params.options:q} 2>&1 | tee -i {log:q}"
