# Every combination of the values in `grid.axes`: discovery, fine-tuning and evaluation again in each cell that is not
# among the run's own results. Demonstrations and policy are shared, and modes among cells of one discovery.
# What these rules do not say is as in the rules that they vary: the pipeline knows a cell's job by its wildcards.


use rule discover as grid_discover with:
    output:
        within(CELL_MODES, MODES_NAMES),
    log:
        "logs/{task}/grid-discover-{cell}-seed{seed}.log",
    benchmark:
        "logs/{task}/grid-discover-{cell}-seed{seed}.tsv"
    params:
        options=pipeline.in_cell(pipeline.resumable, output=CELL_MODES),


use rule finetune as grid_finetune with:
    output:
        within(CELL, FINETUNED_NAMES),
    log:
        "logs/{task}/grid-finetune-{method}-{cell}-seed{seed}.log",
    benchmark:
        "logs/{task}/grid-finetune-{method}-{cell}-seed{seed}.tsv"
    params:
        options=pipeline.in_cell(pipeline.resumable, output=CELL),


use rule evaluate as grid_evaluate with:
    output:
        f"{EVALUATED_CELL}/eval.json",
        f"{EVALUATED_CELL}/{EPISODES_FILE}",
        [f"{EVALUATED_CELL}/trajectories.{kind}" for kind in ("parquet", "png", "svg")],
    log:
        "logs/{task}/grid-evaluate-{policy}-{cell}-seed{seed}.log",
    benchmark:
        "logs/{task}/grid-evaluate-{policy}-{cell}-seed{seed}.tsv"
    params:
        options=pipeline.in_cell(pipeline.waiting, finetuned=EVALUATED_CELL, output=f"{EVALUATED_CELL}/eval.json"),


rule grid:
    input:
        evaluations=pipeline.evaluations("grid"),
        beside=pipeline.beside(pipeline.evaluations("grid"), EPISODES_FILE, RUN_FILE),
    output:
        "results/{task}/grid.json",
        report(
            "results/{task}/grid.png",
            caption="../report/grid.rst",
            category="{task}",
            labels={"shows": "grid"},
        ),
        "results/{task}/grid.svg",
    log:
        "logs/{task}/grid.log",
    benchmark:
        "logs/{task}/grid.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    resources:
        mem_mb=pipeline.mem_mb("grid"),
        runtime=pipeline.runtime("grid"),
    params:
        settings=pipeline.stage_params("grid"),
        source=pipeline.source("grid"),
        options=pipeline.options,
    shell:
        "bmd-pipeline grid --task {wildcards.task:q} {params.options:q} 2>&1 | tee -i {log:q}"
