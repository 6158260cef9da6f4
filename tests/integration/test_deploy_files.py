"""The files in redis-setup/ and deploy/ fit the programs that they start."""

import configparser
import re
import shlex
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from computehub.config import HubConfig
from computehub.service import FINISH_REQUESTS_S
from computehub.store.binary import find_server
from computehub.store.embedded import STOP_TIMEOUT_S
from gridcore.config_file import ENVIRONMENT_VARIABLE
from gridnode.config import NodeConfig
from gridnode.membership import GOODBYE_WITHIN_S
from gridnode.slot import KILLED_WITHIN_S
from tests.support.processes import end_process, free_port, start_process, tail
from tests.support.waiting import wait_until

TOP = Path(__file__).parents[2]
REDIS_COMPOSE = TOP / "redis-setup" / "docker-compose.yml"
COMPOSE = TOP / "deploy" / "docker-compose.yml"
SETTINGS = {"REDIS_PASSWORD": "letters0and1digits", "GRID_TOKEN": "more2letters3and4digits"}

NODE_STOPS_WITHIN_S = (
    NodeConfig.model_fields["stop_timeout"].default + KILLED_WITHIN_S + GOODBYE_WITHIN_S
)

_VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?::([-?])([^}]*))?\}")


def inline_config(compose_file: Path, name: str, settings: dict[str, str]) -> str:
    """The file that Compose makes of an inline config (read as text: YAML needs a library)."""
    lines = iter(compose_file.read_text().splitlines())
    start = f"  {name}:"
    while next(lines) != start:
        pass
    while next(lines).strip() != "content: |":
        pass
    block = []
    for line in lines:
        if line.strip() and not line.startswith("      "):
            break
        block.append(line)

    def value(match: re.Match[str]) -> str:
        variable, operator, default = match.groups()
        if variable in settings:
            return settings[variable]
        assert operator == "-", f"{variable} has no default"
        return str(default)

    return _VARIABLE.sub(value, textwrap.dedent("\n".join(block)))


def variables(text: str) -> set[str]:
    return {match[1] for match in _VARIABLE.finditer(text)}


def required_variables(text: str) -> set[str]:
    return {match[1] for match in _VARIABLE.finditer(text) if match[2] == "?"}


def unit(name: str) -> configparser.ConfigParser:
    # Not strict: a key may be there twice, as SystemCallFilter is; the last one is kept.
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(TOP / "deploy" / name)
    return parser


def client_of(port: int, password: str | None) -> redis.Redis:
    # redis-py takes a refused login for a lost connection, and tries it again and again.
    return redis.Redis(
        port=port,
        password=password,
        protocol=2,
        decode_responses=True,
        retry=Retry(NoBackoff(), 0),
    )


@pytest.fixture
def port_of_redis(tmp_path: Path) -> Iterator[int]:
    """A server with the settings that the one in the container has."""
    port = free_port()
    settings = inline_config(REDIS_COMPOSE, "server.conf", SETTINGS)
    here = settings.replace("/etc/valkey/redis.conf", f'"{TOP}/redis-setup/redis.conf"')
    config = tmp_path / "server.conf"
    config.write_text(f'{here}\nport {port}\nbind 127.0.0.1\ndir "{tmp_path}"\n')
    log = tmp_path / "log"
    server = start_process([str(find_server()), str(config)], log=log)

    def is_up() -> bool:
        assert server.poll() is None, tail(log)
        return "Ready to accept connections" in log.read_text()

    try:
        wait_until(is_up, within_s=20, what="the server takes connections")
        yield port
    finally:
        end_process(server)


def test_redis_asks_for_the_password_and_keeps_everything_that_it_is_given(
    port_of_redis: int, tmp_path: Path
) -> None:
    with client_of(port_of_redis, None) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()

    with client_of(port_of_redis, SETTINGS["REDIS_PASSWORD"]) as client:
        kept = client.config_get("*")
        assert kept["appendonly"] == "yes"
        assert kept["appendfsync"] == "everysec"
        assert kept["save"] == ""
        assert kept["maxmemory-policy"] == "noeviction"
        assert kept["tcp-keepalive"] == "60"
        client.lpush("queue", "an item")
        wait_until(
            lambda: any(b"an item" in file.read_bytes() for file in tmp_path.rglob("*.aof")),
            within_s=5,
            what="the item is in the append-only file",
        )


def test_compose_gives_the_hub_a_configuration_that_it_accepts() -> None:
    text = inline_config(COMPOSE, "computehub.toml", SETTINGS)
    config = HubConfig.model_validate(tomllib.loads(text))
    assert config.token == SETTINGS["GRID_TOKEN"]
    assert config.redis_url == f"redis://default:{SETTINGS['REDIS_PASSWORD']}@127.0.0.1:6379/0"


def test_compose_gives_the_node_a_configuration_that_leads_it_to_the_hub() -> None:
    hub = HubConfig.model_validate(
        tomllib.loads(inline_config(COMPOSE, "computehub.toml", SETTINGS))
    )
    node = NodeConfig.model_validate(
        tomllib.loads(inline_config(COMPOSE, "gridnode.toml", SETTINGS))
    )
    assert node.server_url == f"http://127.0.0.1:{hub.port}"
    assert node.token == hub.token
    assert node.node_id, "the node could not save the one that the hub gives it"


@pytest.mark.parametrize("compose_file", [REDIS_COMPOSE, COMPOSE], ids=["redis-setup", "deploy"])
def test_env_example_names_what_compose_reads_and_leaves_the_secrets_to_be_set(
    compose_file: Path,
) -> None:
    text = compose_file.read_text()
    if compose_file == COMPOSE:
        text += REDIS_COMPOSE.read_text()  # it includes that one
    example = compose_file.with_name(".env.example").read_text()
    assert set(re.findall(r"^(?:# )?([A-Z_]+)=", example, re.MULTILINE)) == variables(text)
    assert set(re.findall(r"^([A-Z_]+)=$", example, re.MULTILINE)) == required_variables(text)


@pytest.mark.parametrize("name", ["computehub", "gridnode"])
def test_unit_starts_a_program_that_the_package_installs(name: str) -> None:
    scripts = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["scripts"]
    service = unit(f"{name}.service")["Service"]
    program = Path(shlex.split(service["ExecStart"])[0])
    assert program.name == name
    assert program.name in scripts


@pytest.mark.parametrize("name", ["computehub", "gridnode"])
def test_unit_lets_the_program_keep_its_configuration(name: str) -> None:
    service = unit(f"{name}.service")["Service"]
    assert service["StateDirectory"] == name
    assert service["Environment"] == f"{ENVIRONMENT_VARIABLE}=%S/{name}"


def test_unit_of_the_node_lets_it_enter_a_containers_network_and_no_other_namespace() -> None:
    service = unit("gridnode.service")["Service"]
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"] == "CAP_SYS_ADMIN"
    assert service["RestrictNamespaces"] == "net"
    assert "User" in service, "as root it would have what the capability is to spare it"


@pytest.mark.parametrize(
    ("name", "stops_within_s"),
    [
        # The embedded store gets its time twice: to answer, and then to end.
        ("computehub", FINISH_REQUESTS_S + 2 * STOP_TIMEOUT_S),
        ("gridnode", NODE_STOPS_WITHIN_S),
    ],
)
def test_unit_leaves_the_stop_to_the_program_and_gives_it_time(
    name: str, stops_within_s: float
) -> None:
    service = unit(f"{name}.service")["Service"]
    assert service["KillMode"] == "mixed"
    assert service["Restart"] == "on-failure", "what was stopped in order stays stopped"
    assert float(service["TimeoutStopSec"]) > stops_within_s


def test_compose_gives_the_node_time_to_stop() -> None:
    node = COMPOSE.read_text().partition("\n  node:\n")[2].partition("\n\n")[0]
    grace = re.search(r"stop_grace_period: (\d+)s", node)
    assert grace
    assert float(grace[1]) > NODE_STOPS_WITHIN_S
