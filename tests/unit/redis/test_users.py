"""Who may ask a Redis may do what he needs, on his own keys, and nothing else; others may do nothing."""

from __future__ import annotations

import re
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bitrix_cdn.engine.files import rendered
from bitrix_cdn.settings import Settings
from host_agent.json_output import AgentError
from host_agent.redis import asking
from host_agent.redis.users import teach, users, write
from tests.kit.deployment import ROOT
from tests.kit.support import wait_until
from tests.kit.tools import needs

INSTANCES = ("cache", "queue")
SOURCES = {
    "queue": "converter_app/src/webp_converter/queue/jobs.py",
    "cache": "converter_app/src/webp_converter/variants/statistics.py",
}
DANGEROUS = """
    flushall flushdb config|get config|set config|rewrite debug eval eval_ro keys scan shutdown replicaof
    slaveof module|load save bgsave bgrewriteaof monitor acl|list acl|setuser acl|whoami client|kill
    client|list script|flush script|kill function|load fcall migrate restore dump swapdb sync psync failover
    cluster|info subscribe publish rename del unlink select latency|reset slowlog|reset
"""


def rules_of(instance: str) -> str:
    path = f"/etc/redis/redis-{instance}.users"
    [file] = rendered("redis", only=[path], settings=Settings())
    return file.content


class Server:
    """A Redis with the users of an instance."""

    def __init__(self, directory: Path, instance: str) -> None:
        self.directory = directory
        self.socket = directory / "redis.sock"
        for user in ("operator", "converter", "exporter"):
            (directory / user).write_text(secrets.token_hex(32))
        self.found = users(rules_of(instance), directory.joinpath)
        self.file = directory / "users.acl"

    def started(self, *options: str) -> subprocess.Popen[bytes]:
        command = ["redis-server", "--port", "0", "--unixsocket", str(self.socket), "--save", "", *options]
        process = subprocess.Popen(command, cwd=self.directory, stdout=subprocess.DEVNULL)
        wait_until("Redis", lambda: self.says("ping"), lambda said: said in ("PONG", _NO_PASSWORD))
        return process

    def says(self, *command: str, user: str = "") -> str:
        words, environment = asking(self.socket, self.directory / (user or "nobody"), *command)
        words = [user if word == "operator" and user else word for word in words]
        result = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        return result.stdout.strip()

    def may(self, user: str, *command: str) -> bool:
        said = self.says("acl", "dryrun", user, *command, user="operator")
        assert said == "OK" or "has no permissions" in said or "no permission" in said, said
        return said == "OK"


_NO_PASSWORD = "NOAUTH Authentication required."


@pytest.fixture(params=INSTANCES)
def instance(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(tmp_path: Path, instance: str) -> Iterator[Server]:
    needs("redis-server", package="redis-server")
    server = Server(tmp_path, instance)
    write(server.file, server.found, tmp_path.owner())
    process = server.started("--aclfile", str(server.file))
    yield server
    process.kill()
    process.wait()


def test_nobody_without_a_password_may_do_anything(server: Server) -> None:
    for command in (["ping"], ["info"], ["flushall"], ["config", "get", "*"], ["acl", "whoami"]):
        assert server.says(*command) == _NO_PASSWORD
    (server.directory / "converter").write_text("0" * 64)
    assert server.says("ping", user="converter") == _NO_PASSWORD
    assert server.file.stat().st_mode & 0o777 == 0o400


def test_what_harms_is_the_operators_alone(server: Server) -> None:
    for name in DANGEROUS.split():
        words = [*name.split("|"), "0", "webp:x", "webp:y", "1", "1"]
        # As many arguments as it takes: some take none.
        tried = [words[:count] for count in range(1 + name.count("|"), len(words) + 1)]
        for user in ("converter", "exporter"):
            said = [server.says("acl", "dryrun", user, *one, user="operator") for one in tried]
            assert any("permission" in one for one in said), (user, name, said)
            assert "OK" not in said, (user, name)
    assert server.says("config", "get", "port", user="operator").split() == ["port", "0"]


def test_the_converter_may_what_its_sources_call_and_no_more(server: Server, instance: str) -> None:
    source = (ROOT / SOURCES[instance]).read_text()
    called = {name.lower() for name in re.findall(r"redis\.call\('(\w+)'", source)}
    called |= {name.replace("_", "|") for name in re.findall(r"(?:self\._redis|pipe)\.([a-z_]+)\(", source)}
    called -= {"close", "execute", "pipeline", "register|script", "xpending|range"}
    called |= {"evalsha", "script|load"}
    called |= {"multi", "exec"} if "transaction=True" in source else set()
    called |= {"xpending"} if "xpending_range" in source else set()
    allowed = re.search(r"^converter .*$", rules_of(instance), re.M)
    assert allowed
    assert set(re.findall(r"\+(\S+)", allowed[0])) == called


def test_keys_of_others_are_closed_to_it(server: Server, instance: str) -> None:
    read = ("hget", "{}", "field")
    assert server.may("converter", *[word.format("webp:paths") for word in read])
    for key in ("webpx", "other:paths", "paths"):
        assert not server.may("converter", *[word.format(key) for word in read])
    assert not server.may("exporter", *[word.format("webp:paths") for word in read])


def test_one_that_runs_is_told_before_it_insists(tmp_path: Path, instance: str) -> None:
    needs("redis-server", package="redis-server")
    server = Server(tmp_path, instance)
    process = server.started()
    try:
        teach(server.socket, server.found)
        # The converter that runs goes on, the next one gives its password.
        assert server.says("ping") == "PONG"
        assert server.says("acl", "whoami", user="operator") == "operator"
        assert server.says("flushall", user="converter").startswith("NOPERM")
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("content", "said"), [(None, "No such file"), ("", "fewer"), ("short", "fewer")])
def test_a_password_that_is_none_is_named(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "operator").write_text(content)
    where: Callable[[str], Path] = tmp_path.joinpath
    with pytest.raises(AgentError, match=said) as refusal:
        users("# nobody\n\noperator ~* +@all\n", where)
    assert str(tmp_path / "operator") in str(refusal.value)
