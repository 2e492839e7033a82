# From a task's name to results/<Task>/eval.json:
#
#   snakemake --cores 8 results/PushT/eval.json
#   snakemake --cores 8 results/GaussianMixture-smoke/eval.json --config preset=smoke   # a run with a name, in folders of its own
#   snakemake --cores 8 results/PushT/compare.json results/PushT/verdict.json
#   snakemake --cores 8 results/PushT/grid.json --config 'grid={axes: {finetune.regulariser.mi_weight: [0, 0.1, 1]}}'
#   snakemake --cores 8 results/PushT/modes/validation.json
#   snakemake --cores 8 results/PushT/pool.json --config "seeds=[0]"   # over base policies: PushT-base0, PushT-base1, …
#   snakemake --cores 8 results/PushT/report.html results/summary.html
#   snakemake --cores 8 results/PushT/videos/expert.json        # clips, where something renders
#   snakemake --cores 8 results/PushT/dsrl-bmd/seed7/eval.json --config 'set=[finetune.regulariser.mi_weight=0.3]'
#   snakemake --cores 8 --configfile mine.yaml                  # the tasks, methods, seeds and axes of a grid listed there
#
# Settings come from config/, see there; --configfile and --config are laid over them.
# workflow/profiles/default is picked up by itself (through the link `profiles`); for a cluster:
#
#   snakemake --workflow-profile workflow/profiles/slurm results/PushT/eval.json

from snakemake.utils import min_version

min_version("9.0")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/collect.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/discover.smk"
include: "workflow/rules/validation.smk"
include: "workflow/rules/finetune.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/curve.smk"
include: "workflow/rules/compare.smk"
include: "workflow/rules/verdict.smk"
include: "workflow/rules/grid.smk"
include: "workflow/rules/pool.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/play.smk"


rule another_run:
    # never runs: says which target is the right one
    input:
        pipeline.refuse_target,
    output:
        "{target}",
    wildcard_constraints:
        target=pipeline.other_targets(),


onstart:
    pipeline.announce(workflow.dag.needrun_jobs())


rule all:
    default_target: True
    input:
        pipeline.default_targets,
