# Every combination of the values in `grid.axes`: discovery, fine-tuning and evaluation again in each cell that is not
# among the run's own results. Demonstrations and policy are shared, and modes among cells of one discovery.
# What these rules do not say is as in the rules that they vary: the pipeline knows a cell's job by its wildcards.


use rule discover as grid_discover with:
    output:
        within(paths.cell_modes, MODES_NAMES),
    log:
        f"{paths.logs}/grid-discover-{{cell}}-seed{{seed}}.log",
    benchmark:
        f"{paths.logs}/grid-discover-{{cell}}-seed{{seed}}.tsv"
    params:
        options=pipeline.in_cell(pipeline.resumable("discover"), output=paths.cell_modes),


use rule finetune as grid_finetune with:
    output:
        within(paths.cell, FINETUNED_NAMES),
    log:
        f"{paths.logs}/grid-finetune-{{method}}-{{cell}}-seed{{seed}}.log",
    benchmark:
        f"{paths.logs}/grid-finetune-{{method}}-{{cell}}-seed{{seed}}.tsv"
    params:
        options=pipeline.in_cell(pipeline.resumable("finetune"), output=paths.cell),


use rule evaluate as grid_evaluate with:
    output:
        f"{paths.evaluated_cell}/eval.json",
        f"{paths.evaluated_cell}/{EPISODES_FILE}",
        [f"{paths.evaluated_cell}/trajectories.{kind}" for kind in ("parquet", "png", "svg")],
    log:
        f"{paths.logs}/grid-evaluate-{{policy}}-{{cell}}-seed{{seed}}.log",
    benchmark:
        f"{paths.logs}/grid-evaluate-{{policy}}-{{cell}}-seed{{seed}}.tsv"
    params:
        options=pipeline.in_cell(
            pipeline.waiting("evaluate"), finetuned=paths.evaluated_cell, output=f"{paths.evaluated_cell}/eval.json"
        ),


rule grid:
    input:
        evaluations=pipeline.evaluations("grid"),
        beside=pipeline.beside(pipeline.evaluations("grid"), EPISODES_FILE, RUN_FILE),
    output:
        f"{paths.results}/grid.json",
        report(
            f"{paths.results}/grid.png",
            caption="../report/grid.rst",
            category="{task}",
            labels={"shows": "grid"},
        ),
        f"{paths.results}/grid.svg",
    log:
        f"{paths.logs}/grid.log",
    benchmark:
        f"{paths.logs}/grid.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    resources:
        mem_mb=pipeline.mem_mb("grid"),
        runtime=pipeline.runtime("grid"),
    params:
        settings=pipeline.stage_params("grid"),
        source=pipeline.source("grid"),
        options=pipeline.options("grid"),
    shell:
        "bmd-pipeline grid --task {wildcards.task:q} {params.options:q} 2>&1 | tee -i {log:q}"
