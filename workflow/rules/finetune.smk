rule finetune:
    input:
        policy=pipeline.policy,
        modes=pipeline.modes,
    output:
        within(paths.finetuned, FINETUNED_NAMES),
    log:
        f"{paths.logs}/finetune-{{method}}-seed{{seed}}.log",
    benchmark:
        f"{paths.logs}/finetune-{{method}}-seed{{seed}}.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    threads: pipeline.threads("finetune")
    resources:
        mem_mb=pipeline.mem_mb("finetune"),
        runtime=pipeline.runtime("finetune"),
        gpu=pipeline.gpu("finetune"),
    params:
        settings=pipeline.stage_params("finetune"),
        source=pipeline.source("finetune"),
        options=pipeline.resumable("finetune"),
    shell:
        "bmd-pipeline finetune --task {wildcards.task:q} --method {wildcards.method:q} --seed {wildcards.seed:q}"
        " {params.options:q} 2>&1 | tee -i {log:q}"
