rule report:
    input:
        pipeline.report_inputs,
    output:
        report(
            f"{paths.results}/report.html",
            caption="../report/page.rst",
            category="{task}",
            labels={"shows": "page"},
        ),
    log:
        f"{paths.logs}/report.log",
    benchmark:
        f"{paths.logs}/report.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    resources:
        mem_mb=pipeline.mem_mb("report"),
        runtime=pipeline.runtime("report"),
    params:
        settings=pipeline.all_settings,
        source=pipeline.source("report"),
        clips=pipeline.clips,
        grid=pipeline.unasked_grid,
        options=pipeline.options("report"),
    shell:
        "bmd-pipeline report --task {wildcards.task:q} {params.options:q} 2>&1 | tee -i {log:q}"


rule summary:
    input:
        pipeline.summary_inputs,
    output:
        str(pipeline.layout.overview()),
    log:
        f"logs/{pipeline.layout.overview().stem}.log",
    benchmark:
        f"logs/{pipeline.layout.overview().stem}.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        tasks=pipeline.summary_tasks,
        source=pipeline.summary_source(),
        options=pipeline.summary_options,
    shell:
        "bmd-pipeline summary {params.tasks:q} {params.options:q} 2>&1 | tee -i {log:q}"
