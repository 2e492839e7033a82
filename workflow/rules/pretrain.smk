rule pretrain:
    input:
        pipeline.collected,
        ancient(pipeline.brought),
    output:
        POLICY,
    log:
        "logs/{task}/pretrain.log",
    benchmark:
        "logs/{task}/pretrain.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    threads: pipeline.threads("pretrain")
    resources:
        mem_mb=pipeline.mem_mb("pretrain"),
        runtime=pipeline.runtime("pretrain"),
        gpu=pipeline.gpu("pretrain"),
    params:
        settings=pipeline.slice("pretrain"),
        source=pipeline.source("pretrain"),
        options=pipeline.pretraining,
        brought=pipeline.brought_hash,
    shell:
        "bmd-pipeline pretrain --task {wildcards.task:q} {params.options:q} 2>&1 | tee -i {log:q}"
