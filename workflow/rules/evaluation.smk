# Models on annotated images, side by side.


# A killed evaluation goes on: what is known of a model is kept.
rule evaluation:
    output:
        EVALUATED,
    log:
        str(Path(EVALUATED).with_suffix(".log")),
    conda:
        "../envs/volsam.yaml"
    threads: THREADS
    resources:
        site=CLUSTER,
    params:
        settings=evaluate_config(CONFIG),
        inputs=lambda wildcards: evaluation_inputs(CONFIG),
    message:
        "evaluate models {CONFIG.evaluate.name}"
    shell:
        "python -m volsam evaluate --config {params.settings:q} --marker {output:q}"
        " --threads {threads} 2>&1 | tee -a {log:q}"
