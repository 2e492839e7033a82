# Clips of each mode, for people. Nothing else needs them, and they need something to render with (docs/tasks.md):
# they are made only if asked for, and the report shows those that are there.
rule play:
    input:
        pipeline.validated,
    output:
        f"{paths.results}/videos/expert.json",
    log:
        f"{paths.logs}/play/expert.log",
    benchmark:
        f"{paths.logs}/play/expert.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    resources:
        mem_mb=pipeline.mem_mb("play"),
        runtime=pipeline.runtime("play"),
    params:
        settings=pipeline.stage_params("collect"),
        source=pipeline.source("play"),
        options=pipeline.options("play"),
    shell:
        "bmd-pipeline play --task {wildcards.task:q} {params.options:q} 2>&1 | tee -i {log:q}"


rule play_policy:
    input:
        base=pipeline.policy,
        judged=pipeline.finetuned,
    output:
        f"{paths.results}/videos/{{policy}}-seed{{seed}}.json",
    log:
        f"{paths.logs}/play/{{policy}}-seed{{seed}}.log",
    benchmark:
        f"{paths.logs}/play/{{policy}}-seed{{seed}}.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    resources:
        mem_mb=pipeline.mem_mb("play"),
        runtime=pipeline.runtime("play"),
    params:
        settings=pipeline.stage_params("evaluate"),
        source=pipeline.source("play"),
        options=pipeline.options("play"),
    shell:
        "bmd-pipeline play --task {wildcards.task:q} --method {wildcards.policy:q} --seed {wildcards.seed:q} {params.options:q}"
        " 2>&1 | tee -i {log:q}"
