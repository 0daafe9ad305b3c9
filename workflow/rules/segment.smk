# From the image to 3D instance labels.


# An image that is no OME-Zarr is written as one; one that is stays where it is.
rule ingest:
    output:
        marker("ingest"),
    log:
        log_of("ingest"),
    conda:
        "../envs/volsam.yaml"
    threads: THREADS
    resources:
        site=CLUSTER,
    params:
        settings=settings("ingest"),
        handed=handed("ingest"),
        inputs=inputs("ingest"),
    message:
        "ingest {wildcards.sample}"
    shell:
        "python -m volsam run ingest --config {params.handed:q} --sample {wildcards.sample:q}"
        " --cluster {resources.site:q} --workers {threads} 2>&1 | tee -a {log:q}"


# Tiles, scale, normalisation and the forecast are settled once.
rule plan:
    input:
        marker("ingest"),
        trained,
    output:
        marker("plan"),
    log:
        log_of("plan"),
    conda:
        "../envs/volsam.yaml"
    threads: 1
    resources:
        site=CLUSTER,
    params:
        settings=settings("plan"),
        handed=handed("plan"),
        inputs=inputs("plan"),
    message:
        "plan {wildcards.sample}"
    shell:
        "python -m volsam run plan --config {params.handed:q} --sample {wildcards.sample:q}"
        " --cluster {resources.site:q} --workers {threads} 2>&1 | tee -a {log:q}"


# Embeddings of all tiles, if they are to be kept.
rule encode:
    input:
        marker("plan"),
    output:
        marker("encode"),
    log:
        log_of("encode"),
    conda:
        "../envs/volsam.yaml"
    threads: THREADS
    resources:
        site=CLUSTER,
    params:
        settings=settings("encode"),
    message:
        "encode {wildcards.sample}"
    shell:
        "python -m volsam run encode --config {params.settings:q} --sample {wildcards.sample:q}"
        " --cluster {resources.site:q} --workers {threads} 2>&1 | tee -a {log:q}"


# Tiles become labelled fragments.
rule segment:
    input:
        marker("plan"),
        embeddings,
    output:
        marker("segment"),
    log:
        log_of("segment"),
    conda:
        "../envs/volsam.yaml"
    threads: THREADS
    resources:
        site=CLUSTER,
    params:
        settings=settings("segment"),
    message:
        "segment {wildcards.sample}"
    shell:
        "python -m volsam run segment --config {params.settings:q} --sample {wildcards.sample:q}"
        " --cluster {resources.site:q} --workers {threads} 2>&1 | tee -a {log:q}"


# Overlaps of neighbouring tiles and slices: the graph.
rule overlap:
    input:
        marker("segment"),
    output:
        marker("overlap"),
    log:
        log_of("overlap"),
    conda:
        "../envs/volsam.yaml"
    threads: THREADS
    resources:
        site=CLUSTER,
    params:
        settings=settings("overlap"),
    message:
        "overlap {wildcards.sample}"
    shell:
        "python -m volsam run overlap --config {params.settings:q} --sample {wildcards.sample:q}"
        " --cluster {resources.site:q} --workers {threads} 2>&1 | tee -a {log:q}"


# The graph becomes objects.
rule partition:
    input:
        marker("overlap"),
    output:
        marker("partition"),
    log:
        log_of("partition"),
    conda:
        "../envs/volsam.yaml"
    threads: 1
    resources:
        site=CLUSTER,
    params:
        settings=settings("partition"),
    message:
        "partition {wildcards.sample}"
    shell:
        "python -m volsam run partition --config {params.settings:q} --sample {wildcards.sample:q}"
        " --cluster {resources.site:q} --workers {threads} 2>&1 | tee -a {log:q}"


# Objects that a user prompted are followed through all frames.
rule propagate:
    input:
        marker("plan"),
    output:
        marker("propagate"),
    log:
        log_of("propagate"),
    conda:
        "../envs/volsam.yaml"
    threads: THREADS
    resources:
        site=CLUSTER,
    params:
        settings=settings("propagate"),
        inputs=inputs("propagate"),
    message:
        "propagate {wildcards.sample}"
    shell:
        "python -m volsam run propagate --config {params.settings:q} --sample {wildcards.sample:q}"
        " --cluster {resources.site:q} --workers {threads} 2>&1 | tee -a {log:q}"


# Labels that are there already become objects.
rule number:
    input:
        given,
    output:
        marker("number"),
    log:
        log_of("number"),
    conda:
        "../envs/volsam.yaml"
    threads: THREADS
    resources:
        site=CLUSTER,
    params:
        settings=settings("number"),
    message:
        "number {wildcards.sample}"
    shell:
        "python -m volsam run number --config {params.settings:q} --sample {wildcards.sample:q}"
        " --cluster {resources.site:q} --workers {threads} 2>&1 | tee -a {log:q}"


# Objects that a user merged or split become what was made of them.
rule regroup:
    input:
        objects,
    output:
        marker("regroup"),
    log:
        log_of("regroup"),
    conda:
        "../envs/volsam.yaml"
    threads: 1
    resources:
        site=CLUSTER,
    params:
        settings=settings("regroup"),
        inputs=inputs("regroup"),
    message:
        "regroup {wildcards.sample}"
    shell:
        "python -m volsam run regroup --config {params.settings:q} --sample {wildcards.sample:q}"
        " --cluster {resources.site:q} --workers {threads} 2>&1 | tee -a {log:q}"


# Objects become labels in OME-Zarr, with their pyramid.
rule label:
    input:
        corrected,
    output:
        marker("label"),
    log:
        log_of("label"),
    conda:
        "../envs/volsam.yaml"
    threads: THREADS
    resources:
        site=CLUSTER,
    params:
        settings=settings("label"),
    message:
        "label {wildcards.sample}"
    shell:
        "python -m volsam run label --config {params.settings:q} --sample {wildcards.sample:q}"
        " --cluster {resources.site:q} --workers {threads} 2>&1 | tee -a {log:q}"
