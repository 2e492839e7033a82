rule curve:
    # Not part of the summary: it judges many snapshots, which only a run with finetune.snapshot_interval keeps.
    input:
        base=pipeline.policy,
        finetuned=pipeline.snapshots,
    output:
        f"{paths.results}/{{method}}/seed{{seed}}/curve.json",
    log:
        f"{paths.logs}/curve-{{method}}-seed{{seed}}.log",
    benchmark:
        f"{paths.logs}/curve-{{method}}-seed{{seed}}.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    threads: pipeline.threads("evaluate")
    resources:
        mem_mb=pipeline.mem_mb("curve"),
        runtime=pipeline.runtime("curve"),
        gpu=pipeline.gpu("curve"),
    params:
        settings=pipeline.stage_params("curve"),
        source=pipeline.source("curve"),
        options=pipeline.options("curve"),
    shell:
        "bmd-pipeline curve --task {wildcards.task:q} --method {wildcards.method:q} --seed {wildcards.seed:q}"
        " {params.options:q} 2>&1 | tee -i {log:q}"
