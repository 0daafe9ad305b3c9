# From objects of all frames to lineages.


# Shapes, motion and overlaps of the objects of each frame.
rule observe:
    input:
        marker("measure"),
        objects,
    output:
        marker("observe"),
    log:
        log_of("observe"),
    conda:
        "../envs/volsam.yaml"
    threads: THREADS
    resources:
        site=CLUSTER,
    params:
        settings=settings("observe"),
        inputs=inputs("observe"),
    message:
        "observe {wildcards.sample}"
    shell:
        "python -m volsam run observe --config {params.settings:q} --sample {wildcards.sample:q}"
        " --cluster {resources.site:q} --workers {threads} 2>&1 | tee -a {log:q}"


# Objects become tracks and families.
rule link:
    input:
        marker("observe"),
    output:
        marker("link"),
    log:
        log_of("link"),
    conda:
        "../envs/volsam.yaml"
    threads: THREADS
    resources:
        site=CLUSTER,
    params:
        settings=settings("link"),
        inputs=inputs("link"),
    message:
        "link {wildcards.sample}"
    shell:
        "python -m volsam run link --config {params.settings:q} --sample {wildcards.sample:q}"
        " --cluster {resources.site:q} --workers {threads} 2>&1 | tee -a {log:q}"


# Tracks become labels in OME-Zarr, with their pyramid.
rule tracks:
    input:
        marker("link"),
    output:
        marker("tracks"),
    log:
        log_of("tracks"),
    conda:
        "../envs/volsam.yaml"
    threads: THREADS
    resources:
        site=CLUSTER,
    params:
        settings=settings("tracks"),
    message:
        "tracks {wildcards.sample}"
    shell:
        "python -m volsam run tracks --config {params.settings:q} --sample {wildcards.sample:q}"
        " --cluster {resources.site:q} --workers {threads} 2>&1 | tee -a {log:q}"


# Lineages in the formats that other tools read.
rule export:
    input:
        marker("tracks"),
    output:
        marker("export"),
    log:
        log_of("export"),
    conda:
        "../envs/volsam.yaml"
    threads: 1
    resources:
        site=CLUSTER,
    params:
        settings=settings("export"),
    message:
        "export {wildcards.sample}"
    shell:
        "python -m volsam run export --config {params.settings:q} --sample {wildcards.sample:q}"
        " --cluster {resources.site:q} --workers {threads} 2>&1 | tee -a {log:q}"


# Scores against a tracked truth.
rule compare:
    input:
        marker("link"),
    output:
        marker("compare"),
    log:
        log_of("compare"),
    conda:
        "../envs/volsam.yaml"
    threads: 1
    resources:
        site=CLUSTER,
    params:
        settings=settings("compare"),
        inputs=inputs("compare"),
    message:
        "compare {wildcards.sample}"
    shell:
        "python -m volsam run compare --config {params.settings:q} --sample {wildcards.sample:q}"
        " --cluster {resources.site:q} --workers {threads} 2>&1 | tee -a {log:q}"
