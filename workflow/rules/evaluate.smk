rule evaluate:
    input:
        base=pipeline.policy,
        finetuned=pipeline.finetuned,
    output:
        "results/{task}/{policy}/seed{seed}/eval.json",
        "results/{task}/{policy}/seed{seed}/episodes.parquet",
        "results/{task}/{policy}/seed{seed}/trajectories.parquet",
        "results/{task}/{policy}/seed{seed}/trajectories.png",
        "results/{task}/{policy}/seed{seed}/trajectories.svg",
    log:
        "logs/{task}/evaluate-{policy}-seed{seed}.log",
    benchmark:
        "logs/{task}/evaluate-{policy}-seed{seed}.tsv"
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
        options=pipeline.waiting,
    shell:
        "bmd-pipeline evaluate --task {wildcards.task:q} --method {wildcards.policy:q} --seed {wildcards.seed:q}"
        " {params.options:q} 2>&1 | tee -i {log:q}"


rule summarise:
    input:
        evaluations=pipeline.evaluations("summarise"),
        tables=pipeline.beside(pipeline.evaluations("summarise"), EPISODES_FILE, PATHS_FILE),
    output:
        "results/{task}/eval.json",
        "results/{task}/episodes.parquet",
        "results/{task}/trajectories.parquet",
        report(
            "results/{task}/trajectories.png",
            caption="../report/trajectories.rst",
            category="{task}",
            labels={"shows": "trajectories"},
        ),
        "results/{task}/trajectories.svg",
        report(
            "results/{task}/success_modes.png",
            caption="../report/success_modes.rst",
            category="{task}",
            labels={"shows": "success modes"},
        ),
        "results/{task}/success_modes.svg",
    log:
        "logs/{task}/summarise.log",
    benchmark:
        "logs/{task}/summarise.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    resources:
        mem_mb=pipeline.mem_mb("summarise"),
        runtime=pipeline.runtime("summarise"),
    params:
        settings=pipeline.all_settings,
        source=pipeline.source("summarise"),
        options=pipeline.options,
    shell:
        "bmd-pipeline summarise --task {wildcards.task:q} {input.evaluations:q} {params.options:q} 2>&1 | tee -i {log:q}"
