# Every method with every K and λ of the settings: discovery, fine-tuning and evaluation again in each cell that is not
# among the run's own results. Demonstrations and policy are shared, and modes among cells of one K.


use rule discover as grid_discover with:
    output:
        CELL_MODES_FILES,
    log:
        "logs/{task}/grid-discover-k{codes}-seed{seed}.log",
    benchmark:
        "logs/{task}/grid-discover-k{codes}-seed{seed}.tsv"
    params:
        settings=codes_slice,
        source=source_of("discover"),
        brought=taught_on_brought,
        options=codes_options,


use rule finetune as grid_finetune with:
    input:
        policy=files(*POLICY),
        modes=cell_modes_files,
    output:
        CELL_TUNED,
    log:
        "logs/{task}/grid-finetune-{method}-k{codes}-{point}-seed{seed}.log",
    benchmark:
        "logs/{task}/grid-finetune-{method}-k{codes}-{point}-seed{seed}.tsv"
    params:
        settings=cell_slice_of("finetune"),
        source=source_of("finetune"),
        options=cell_options(resumable_options, output=CELL),


use rule evaluate as grid_evaluate with:
    input:
        base=files(*POLICY),
        modes=cell_modes_files,
        tuned=files(*JUDGED_CELL_TUNED),
    output:
        f"{JUDGED_CELL}/eval.json",
        f"{JUDGED_CELL}/episodes.parquet",
        [f"{JUDGED_CELL}/trajectories.{kind}" for kind in ("parquet", "png", "svg")],
    log:
        "logs/{task}/grid-evaluate-{policy}-k{codes}-{point}-seed{seed}.log",
    benchmark:
        "logs/{task}/grid-evaluate-{policy}-k{codes}-{point}-seed{seed}.tsv"
    params:
        settings=cell_slice_of("evaluate"),
        source=source_of("evaluate"),
        options=cell_options(waiting_options, tuned=JUDGED_CELL, output=f"{JUDGED_CELL}/eval.json"),


rule grid:
    input:
        evaluations=gathered_evaluations,
        tables=beside(gathered_evaluations, "episodes.parquet"),
    output:
        "results/{task}/grid.json",
    log:
        "logs/{task}/grid.log",
    benchmark:
        "logs/{task}/grid.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    resources:
        mem_mb=mem_mb_of("grid"),
        runtime=runtime_of("grid"),
    params:
        settings=slice_of("grid"),
        source=source_of("grid"),
        options=options,
    shell:
        "bmd-pipeline grid --task {wildcards.task:q} {params.options:q} 2>&1 | tee -i {log:q}"
