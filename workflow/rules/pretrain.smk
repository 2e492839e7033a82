rule pretrain:
    input:
        pipeline.pretrain_inputs,
    output:
        paths.policy,
    log:
        f"{paths.logs}/pretrain.log",
    benchmark:
        f"{paths.logs}/pretrain.tsv"
    wildcard_constraints:
        task=pipeline.trainable(),
    conda:
        "../../envs/bmd-pipeline.yaml"
    threads: pipeline.threads("pretrain")
    resources:
        mem_mb=pipeline.mem_mb("pretrain"),
        runtime=pipeline.runtime("pretrain"),
        gpu=pipeline.gpu("pretrain"),
    params:
        settings=pipeline.stage_params("pretrain"),
        source=pipeline.source("pretrain"),
        options=pipeline.resumable("pretrain"),
        demos=pipeline.own_demos,
    shell:
        "bmd-pipeline pretrain --task {wildcards.task:q} {params.options:q} 2>&1 | tee -i {log:q}"
