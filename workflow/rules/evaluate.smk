rule evaluate:
    input:
        base=pipeline.policy,
        finetuned=pipeline.finetuned,
    output:
        f"{paths.results}/{{policy}}/seed{{seed}}/eval.json",
        f"{paths.results}/{{policy}}/seed{{seed}}/episodes.parquet",
        f"{paths.results}/{{policy}}/seed{{seed}}/trajectories.parquet",
        f"{paths.results}/{{policy}}/seed{{seed}}/trajectories.png",
        f"{paths.results}/{{policy}}/seed{{seed}}/trajectories.svg",
    log:
        f"{paths.logs}/evaluate-{{policy}}-seed{{seed}}.log",
    benchmark:
        f"{paths.logs}/evaluate-{{policy}}-seed{{seed}}.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    threads: pipeline.threads("evaluate")
    resources:
        mem_mb=pipeline.mem_mb("evaluate"),
        runtime=pipeline.runtime("evaluate"),
        gpu=pipeline.gpu("evaluate"),
    params:
        settings=pipeline.stage_params("evaluate"),
        source=pipeline.source("evaluate"),
        options=pipeline.waiting("evaluate"),
    shell:
        "bmd-pipeline evaluate --task {wildcards.task:q} --method {wildcards.policy:q} --seed {wildcards.seed:q}"
        " {params.options:q} 2>&1 | tee -i {log:q}"


rule summarise:
    input:
        evaluations=pipeline.evaluations("summarise"),
        tables=pipeline.beside(pipeline.evaluations("summarise"), EPISODES_FILE, PATHS_FILE),
    output:
        f"{paths.results}/eval.json",
        f"{paths.results}/episodes.parquet",
        f"{paths.results}/trajectories.parquet",
        report(
            f"{paths.results}/trajectories.png",
            caption="../report/trajectories.rst",
            category="{task}",
            labels={"shows": "trajectories"},
        ),
        f"{paths.results}/trajectories.svg",
        report(
            f"{paths.results}/success_modes.png",
            caption="../report/success_modes.rst",
            category="{task}",
            labels={"shows": "success modes"},
        ),
        f"{paths.results}/success_modes.svg",
    log:
        f"{paths.logs}/summarise.log",
    benchmark:
        f"{paths.logs}/summarise.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    resources:
        mem_mb=pipeline.mem_mb("summarise"),
        runtime=pipeline.runtime("summarise"),
    params:
        settings=pipeline.all_settings,
        source=pipeline.source("summarise"),
        options=pipeline.options("summarise"),
    shell:
        "bmd-pipeline summarise --task {wildcards.task:q} {input.evaluations:q} {params.options:q} 2>&1 | tee -i {log:q}"
