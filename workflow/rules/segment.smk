# From the image to 3D instance labels.


# An image that is no OME-Zarr is written as one; one that is stays where it is.
rule ingest:
    output:
        marker("ingest"),
    params:
        settings=settings("ingest"),
        inputs=inputs("ingest"),
    log:
        log_of("ingest"),
    conda:
        "../envs/volsam.yaml"
    threads: workflow.cores
    message:
        "ingest {wildcards.sample}"
    shell:
        "{VOLSAM} run ingest --config {params.settings:q} --sample {wildcards.sample:q}"
        " --cluster {CLUSTER} --workers {threads} 2>&1 | tee {log:q}"


# Tiles, scale, normalisation and the forecast are settled once.
rule plan:
    input:
        marker("ingest"),
    output:
        marker("plan"),
    params:
        settings=settings("plan"),
        inputs=inputs("plan"),
    log:
        log_of("plan"),
    conda:
        "../envs/volsam.yaml"
    threads: 1
    message:
        "plan {wildcards.sample}"
    shell:
        "{VOLSAM} run plan --config {params.settings:q} --sample {wildcards.sample:q}"
        " --cluster {CLUSTER} --workers {threads} 2>&1 | tee {log:q}"


# Embeddings of all tiles, if they are to be kept.
rule encode:
    input:
        marker("plan"),
    output:
        marker("encode"),
    params:
        settings=settings("encode"),
    log:
        log_of("encode"),
    conda:
        "../envs/volsam.yaml"
    threads: workflow.cores
    message:
        "encode {wildcards.sample}"
    shell:
        "{VOLSAM} run encode --config {params.settings:q} --sample {wildcards.sample:q}"
        " --cluster {CLUSTER} --workers {threads} 2>&1 | tee {log:q}"


# Tiles become labelled fragments.
rule segment:
    input:
        marker("plan"),
        embeddings,
    output:
        marker("segment"),
    params:
        settings=settings("segment"),
    log:
        log_of("segment"),
    conda:
        "../envs/volsam.yaml"
    threads: workflow.cores
    message:
        "segment {wildcards.sample}"
    shell:
        "{VOLSAM} run segment --config {params.settings:q} --sample {wildcards.sample:q}"
        " --cluster {CLUSTER} --workers {threads} 2>&1 | tee {log:q}"


# Overlaps of neighbouring tiles and slices: the graph.
rule overlap:
    input:
        marker("segment"),
    output:
        marker("overlap"),
    params:
        settings=settings("overlap"),
    log:
        log_of("overlap"),
    conda:
        "../envs/volsam.yaml"
    threads: workflow.cores
    message:
        "overlap {wildcards.sample}"
    shell:
        "{VOLSAM} run overlap --config {params.settings:q} --sample {wildcards.sample:q}"
        " --cluster {CLUSTER} --workers {threads} 2>&1 | tee {log:q}"


# The graph becomes objects.
rule partition:
    input:
        marker("overlap"),
    output:
        marker("partition"),
    params:
        settings=settings("partition"),
    log:
        log_of("partition"),
    conda:
        "../envs/volsam.yaml"
    threads: 1
    message:
        "partition {wildcards.sample}"
    shell:
        "{VOLSAM} run partition --config {params.settings:q} --sample {wildcards.sample:q}"
        " --cluster {CLUSTER} --workers {threads} 2>&1 | tee {log:q}"


# Objects become labels in OME-Zarr, with their pyramid.
rule label:
    input:
        marker("partition"),
    output:
        marker("label"),
    params:
        settings=settings("label"),
    log:
        log_of("label"),
    conda:
        "../envs/volsam.yaml"
    threads: workflow.cores
    message:
        "label {wildcards.sample}"
    shell:
        "{VOLSAM} run label --config {params.settings:q} --sample {wildcards.sample:q}"
        " --cluster {CLUSTER} --workers {threads} 2>&1 | tee {log:q}"
