# The λ sweep: `finetune` and `evaluate` again at each point, with another regulariser. Demonstrations, policy and modes
# are those that the methods use.

import os


rule sweep_finetune:
    input:
        policy=pipeline.policy,
        modes=MODES,
    output:
        within(POINT, TUNED_NAMES),
    log:
        "logs/{task}/sweep-finetune-{point}-seed{seed}.log",
    benchmark:
        "logs/{task}/sweep-finetune-{point}-seed{seed}.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    threads: pipeline.threads("finetune")
    resources:
        mem_mb=pipeline.mem_mb("finetune"),
        runtime=pipeline.runtime("finetune"),
        gpu=pipeline.gpu("finetune"),
    params:
        settings=pipeline.point_slice("finetune"),
        source=pipeline.source("finetune"),
        options=pipeline.resumable,
        point=pipeline.at_point,
        folder=POINT,
    shell:
        "bmd-pipeline finetune --task {wildcards.task:q} --seed {wildcards.seed:q} --output {params.folder:q}"
        " {params.options:q} {params.point:q} 2>&1 | tee -i {log:q}"


rule sweep_evaluate:
    input:
        base=pipeline.policy,
        modes=MODES,
        tuned=within(POINT, TUNED_NAMES),
    output:
        evaluation=f"{POINT}/eval.json",
        episodes=f"{POINT}/episodes.parquet",
        trajectories=[f"{POINT}/trajectories.{kind}" for kind in ("parquet", "png", "svg")],
    log:
        "logs/{task}/sweep-evaluate-{point}-seed{seed}.log",
    benchmark:
        "logs/{task}/sweep-evaluate-{point}-seed{seed}.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    threads: pipeline.threads("evaluate")
    resources:
        mem_mb=pipeline.mem_mb("evaluate"),
        runtime=pipeline.runtime("evaluate"),
        gpu=pipeline.gpu("evaluate"),
    params:
        settings=pipeline.point_slice("evaluate"),
        source=pipeline.source("evaluate"),
        options=pipeline.waiting,
        point=pipeline.at_point,
        folder=lambda wildcards, input: os.path.dirname(input.tuned[0]),
    shell:
        "bmd-pipeline evaluate --task {wildcards.task:q} --seed {wildcards.seed:q} --tuned {params.folder:q}"
        " --output {output.evaluation:q} {params.options:q} {params.point:q} 2>&1 | tee -i {log:q}"


rule sweep:
    input:
        pipeline.swept,
    output:
        "results/{task}/lambda/sweep.json",
        report(
            "results/{task}/lambda/sweep.png",
            caption="../report/sweep.rst",
            category="{task}",
            labels={"shows": "sweep"},
        ),
        "results/{task}/lambda/sweep.svg",
    log:
        "logs/{task}/sweep.log",
    benchmark:
        "logs/{task}/sweep.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    resources:
        mem_mb=pipeline.mem_mb("sweep"),
        runtime=pipeline.runtime("sweep"),
    params:
        settings=pipeline.slice("sweep"),
        source=pipeline.source("sweep"),
        options=pipeline.options,
    shell:
        "bmd-pipeline sweep --task {wildcards.task:q} {params.options:q} 2>&1 | tee -i {log:q}"
