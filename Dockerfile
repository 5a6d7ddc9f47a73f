# One image for every Leadferry process: the pinned packages that the tests ran with, the package, the DAGs.
# Built by `docker compose build`; see docs/how-to/run-with-docker.md.
FROM python:3.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    AIRFLOW_HOME=/opt/airflow

# The packages change rarely and the project often, so they are a layer of their own.
COPY requirements.txt /opt/leadferry/requirements.txt
RUN pip install -r /opt/leadferry/requirements.txt

WORKDIR /opt/leadferry
COPY pyproject.toml README.md LICENSE ./
COPY include ./include
# In place, so that config is found beside the package.
RUN pip install --no-deps --editable .
COPY dags ./dags
COPY plugins ./plugins
COPY config ./config

# A named volume takes the owner of the folder it covers, so the folders that are written to exist here.
RUN useradd --uid 50000 --gid 0 --home-dir /opt/airflow --no-create-home airflow \
    && mkdir -p /opt/airflow/logs /opt/archive \
    && chown -R 50000:0 /opt/airflow /opt/archive
USER 50000

CMD ["airflow", "version"]
