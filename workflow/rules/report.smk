from bmd_pipeline.config.methods import list_pairs


def reported_files(wildcards):
    """What a task's page shows. Comparison and verdict are cheap and always made; the λ sweep and the validation of
    the modes are shown where someone asked for them."""
    run = settings(wildcards.task)
    made = ["results/{task}/eval.json", "results/{task}/compare.json", POLICY[-1]]
    for policy in (PRETRAINED, *run.methods):
        names = ["eval.json"] if policy == PRETRAINED else ["eval.json", "run.json"]
        made += expand("results/{{task}}/{policy}/seed{seed}/{name}", policy=policy, seed=run.seeds, name=names)
    if list_pairs(run.methods):
        made.append("results/{task}/verdict.json")
    asked = ["results/{task}/lambda/sweep.json", "results/{task}/modes/validation.json"]
    found = [path for path in asked if Path(path.format(**wildcards)).exists()]
    return files(*made, *found)(wildcards)


def reported_tasks(wildcards):
    """Results and pages of all tasks that have any."""
    tasks = sorted(path.parent.name for path in Path("results").glob("*/eval.json"))
    if not tasks:
        sys.exit("error: no task has results yet; make some, e.g. with snakemake --cores 2 results/PushT/report.html")
    return expand("results/{task}/{file}", task=tasks, file=("eval.json", "report.html"))


rule report:
    input:
        reported_files,
    output:
        "results/{task}/report.html",
    log:
        "logs/{task}/report.log",
    benchmark:
        "logs/{task}/report.tsv"
    conda:
        "../../envs/bmd-pipeline.yaml"
    resources:
        mem_mb=mem_mb,
        runtime=runtime,
    params:
        settings=lambda wildcards: config_hash(settings(wildcards.task)),
        source=source_of("report"),
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
    shell:
        "bmd-pipeline summary 2>&1 | tee -i {log:q}"
