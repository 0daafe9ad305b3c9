# What is said about the result.


# The table of objects.
rule measure:
    input:
        marker("label"),
    output:
        marker("measure"),
    log:
        log_of("measure"),
    conda:
        "../envs/volsam.yaml"
    threads: THREADS
    resources:
        site=CLUSTER,
    params:
        settings=settings("measure"),
    message:
        "measure {wildcards.sample}"
    shell:
        "python -m volsam run measure --config {params.settings:q} --sample {wildcards.sample:q}"
        " --cluster {resources.site:q} --workers {threads} 2>&1 | tee -a {log:q}"


# Scores against the truth.
rule evaluate:
    input:
        marker("label"),
    output:
        marker("evaluate"),
    log:
        log_of("evaluate"),
    conda:
        "../envs/volsam.yaml"
    threads: THREADS
    resources:
        site=CLUSTER,
    params:
        settings=settings("evaluate"),
        inputs=inputs("evaluate"),
    message:
        "evaluate {wildcards.sample}"
    shell:
        "python -m volsam run evaluate --config {params.settings:q} --sample {wildcards.sample:q}"
        " --cluster {resources.site:q} --workers {threads} 2>&1 | tee -a {log:q}"


# What ran, on what, and what came of it.
rule report:
    input:
        marker("measure"),
        lineages,
        scores,
    output:
        marker("report"),
    log:
        log_of("report"),
    conda:
        "../envs/volsam.yaml"
    threads: 1
    resources:
        site=CLUSTER,
    params:
        settings=settings("report"),
    message:
        "report {wildcards.sample}"
    shell:
        "python -m volsam run report --config {params.settings:q} --sample {wildcards.sample:q}"
        " --cluster {resources.site:q} --workers {threads} 2>&1 | tee -a {log:q}"
