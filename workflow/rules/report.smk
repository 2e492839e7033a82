rule report:
    input:
        reported_files,
    output:
        figure("results/{task}/report.html", "page"),
    log:
        "logs/{task}/report.log",
    benchmark:
        "logs/{task}/report.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    resources:
        mem_mb=mem_mb_of("report"),
        runtime=runtime_of("report"),
    params:
        settings=lambda wildcards: config_hash(settings(wildcards.task)),
        source=source_of("report"),
        clips=shown_clips,
        options=options,
    shell:
        "bmd-pipeline report --task {wildcards.task:q} {params.options:q} 2>&1 | tee -i {log:q}"


rule summary:
    input:
        reported_tasks,
    output:
        "results/summary.html",
    log:
        "logs/summary.log",
    benchmark:
        "logs/summary.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        source=source_hash("report", "bmd_pipeline.tasks"),
    shell:
        "bmd-pipeline summary 2>&1 | tee -i {log:q}"
