# One image for code location, web server and daemon; see compose.yaml.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

RUN useradd --create-home --uid 1000 hsae
WORKDIR /opt/hsae
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY hsae_dagster ./hsae_dagster
RUN pip install --no-cache-dir -c constraints.txt . && mkdir /project && chown hsae /project
COPY docker/workspace.yaml /opt/hsae/workspace.yaml

USER hsae
# data/, results/ and Dagster's records, each a volume.
WORKDIR /project
ENV HSAE_HOME=/project DAGSTER_HOME=/project/.dagster_home
EXPOSE 3000 4000
CMD ["hsae", "--help"]
