# What is said about the result.


# The table of objects.
rule measure:
    input:
        marker("label"),
    output:
        marker("measure"),
    params:
        settings=settings("measure"),
    log:
        log_of("measure"),
    conda:
        "../envs/volsam.yaml"
    threads: workflow.cores
    message:
        "measure {wildcards.sample}"
    shell:
        "{VOLSAM} run measure --config {params.settings:q} --sample {wildcards.sample:q}"
        " --cluster {CLUSTER} --workers {threads} 2>&1 | tee {log:q}"


# Scores against the truth.
rule evaluate:
    input:
        marker("label"),
    output:
        marker("evaluate"),
    params:
        settings=settings("evaluate"),
        inputs=inputs("evaluate"),
    log:
        log_of("evaluate"),
    conda:
        "../envs/volsam.yaml"
    threads: workflow.cores
    message:
        "evaluate {wildcards.sample}"
    shell:
        "{VOLSAM} run evaluate --config {params.settings:q} --sample {wildcards.sample:q}"
        " --cluster {CLUSTER} --workers {threads} 2>&1 | tee {log:q}"


# What ran, on what, and what came of it.
rule report:
    input:
        marker("measure"),
        scores,
    output:
        marker("report"),
    params:
        settings=settings("report"),
    log:
        log_of("report"),
    conda:
        "../envs/volsam.yaml"
    threads: 1
    message:
        "report {wildcards.sample}"
    shell:
        "{VOLSAM} run report --config {params.settings:q} --sample {wildcards.sample:q}"
        " --cluster {CLUSTER} --workers {threads} 2>&1 | tee {log:q}"
