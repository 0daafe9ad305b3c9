# From annotations to a model in use.


# A killed training goes on from its last state; one that is published already is not run again.
rule train:
    output:
        TRAINED,
    log:
        str(Path(TRAINED).with_suffix(".log")),
    conda:
        "../envs/volsam.yaml"
    threads: THREADS
    resources:
        site=CLUSTER,
    params:
        settings=train_config(CONFIG),
        inputs=lambda wildcards: training_inputs(CONFIG),
    message:
        "train {CONFIG.train.name}"
    shell:
        "python -m volsam train --config {params.settings:q} --marker {output:q}"
        " --threads {threads} 2>&1 | tee -a {log:q}"
