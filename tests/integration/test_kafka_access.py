"""A broker with TLS, logins and ACLs: the right ones work end to end, a wrong one is one line and a halt."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trustme
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaConnectionError
from confluent_kafka import Producer as KafkaProducer
from confluent_kafka.admin import AclOperation, ResourcePatternType, ResourceType
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth
from support.commands import Forked, forked
from support.events import settled
from support.oauth_issuer import CLIENT, SECRET, Issuer
from support.processes import Worker, eventually, last_word, prepare
from support.secure_kafka import Grant, SecureBroker

from pipeline.catalog import Catalog, load_catalog
from pipeline.config import KafkaSettings, Settings, env_name
from pipeline.devstack.ports import free_port
from pipeline.errors import HaltError, UnavailableError
from pipeline.kafka.client import client_config
from pipeline.kafka.failures import check_connection
from pipeline.kafka.oauth import Tokens
from pipeline.kafka.topics import TopicAdmin
from pipeline.transport.adapter.credentials import faust_credentials
from pipeline.transport.adapter.login import TokenProvider
from pipeline.worker.preflight import check_topics

pytestmark = pytest.mark.integration

_PASSWORD = "correct horse"
_UI = ("--families", "ui_events")


def _worker_grants(settings: Settings, catalog: Catalog) -> list[Grant]:
    """Return the ACLs of the worker in docs/access.md."""
    read = [Grant(ResourceType.TOPIC, family.topic.name, AclOperation.READ) for family in catalog.families]
    write = [Grant(ResourceType.TOPIC, family.dead_letters.name, AclOperation.WRITE) for family in catalog.families]
    assert catalog.rollup is not None
    state = [
        Grant(ResourceType.TOPIC, catalog.rollup.state.name, operation)
        for operation in (AclOperation.READ, AclOperation.WRITE)
    ]
    return [*read, *write, *state, Grant(ResourceType.GROUP, settings.kafka.group_id, AclOperation.READ)]


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer() as running:
        yield running


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[SecureBroker]:
    with SecureBroker(tmp_path_factory.mktemp("secure"), issuer.url) as running:
        for user in ("worker", "producer", "operator", "stranger"):
            running.add_user(user, _PASSWORD)
        yield running


@pytest.fixture
def secured(broker: SecureBroker, environ: dict[str, str]) -> dict[str, str]:
    """Environment of a process that connects to the listener with logins."""
    login = {
        "bootstrap_servers": broker.sasl,
        "security_protocol": "SASL_SSL",
        "ca_cert": str(broker.ca_cert),
        "user": "worker",
        "password": _PASSWORD,
    }
    return environ | {env_name("kafka", key): value for key, value in login.items()}


@pytest.fixture
def admin(broker: SecureBroker, settings: Settings) -> Settings:
    """Settings that connect to the test's own listener."""
    kafka = settings.kafka.model_copy(update={"bootstrap_servers": broker.broker.bootstrap_servers})
    return settings.model_copy(update={"kafka": kafka})


@pytest.fixture
def catalog(broker: SecureBroker, admin: Settings) -> Catalog:
    """Catalog whose topics and tables exist; the worker has its ACLs."""
    catalog = prepare(admin)
    broker.allow("worker", *_worker_grants(admin, catalog))
    return catalog


def _kafka(environ: dict[str, str]) -> KafkaSettings:
    """Read the settings of a process with this environment."""
    prefix = env_name("kafka", "")
    return KafkaSettings.model_validate(
        {name.removeprefix(prefix).lower(): value for name, value in environ.items() if name.startswith(prefix)}
    )


def _coordinated(kafka: KafkaSettings) -> bool:
    """Tell whether the broker has chosen the group's coordinator, which it does at the first request."""
    with suppress(UnavailableError):
        return bool(TopicAdmin(kafka).group_rights(kafka.group_id))
    return False


@pytest.fixture
def chimera(commands: Path) -> Forked:
    """Run `chimera …` in an environment."""
    return lambda environ, *arguments: forked(commands, environ)(*arguments)


def test_a_worker_works_end_to_end(
    *,
    broker: SecureBroker,
    admin: Settings,
    secured: dict[str, str],
    catalog: Catalog,
    chimera: Forked,
    tmp_path: Path,
) -> None:
    """The worker consumes, inserts, writes dead letters and commits with the documented ACLs and no others."""
    family = catalog.family("ui_events")
    broker.allow("producer", Grant(ResourceType.TOPIC, family.topic.name, AclOperation.WRITE))
    produced = chimera(secured | {env_name("kafka", "user"): "producer"}, "produce", "--sample", "200", *_UI)
    assert produced.returncode == 0, produced.stderr
    careless = KafkaProducer(client_config(admin.kafka))
    careless.produce(family.topic.name, b"neither framing")
    assert careless.flush(30) == 0
    with Worker(secured, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        settled(worker, admin, family, 201)
        assert worker.metric("chimera_records_rejected_total") == 1
    assert "Traceback" not in worker.log


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        pytest.param(
            {"password": "hunter2"}, "refuses user 'worker' or the password; check CHIMERA_KAFKA__USER", id="password"
        ),
        pytest.param({"user": "nobody"}, "refuses user 'nobody' or the password; check CHIMERA_KAFKA__USER", id="user"),
        pytest.param({"ca_cert": "other.pem"}, "unable to get local issuer certificate", id="authority"),
        pytest.param({"bootstrap_servers": "localhost"}, "certificate is not valid for 'localhost'", id="name"),
    ],
)
def test_a_refused_login_halts(secured: dict[str, str], tmp_path: Path, wrong: dict[str, str], said: str) -> None:
    """One line says what is wrong and which settings to check, without the password; the worker ends."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    ((key, value),) = wrong.items()
    name = env_name("kafka", key)
    value = {"ca_cert": str(tmp_path / value), "bootstrap_servers": secured[name].replace("127.0.0.1", value)}.get(
        key, value
    )
    environ = secured | {name: value}
    with Worker(environ, tmp_path / "log") as worker:
        line = last_word(worker, HaltError.exit_code)
    assert said in line
    assert "hunter2" not in worker.log
    assert "correct horse" not in worker.log


def test_a_missing_acl_halts(broker: SecureBroker, admin: Settings, secured: dict[str, str], catalog: Catalog) -> None:
    """The worker checks each documented ACL before it consumes; the line names the topic or group."""
    kafka = _kafka(secured)
    eventually(partial(_coordinated, kafka), "the broker knows the group's coordinator")
    grants = _worker_grants(admin, catalog)
    for missing in (grants[0], *grants[-4:]):  # a family's topic, dead letters, the rollup's state, the group
        broker.forbid("worker", missing)
        with pytest.raises(HaltError) as refusal:
            check_topics(kafka, catalog, catalog.rollup)
        assert f"Kafka at {broker.sasl} doesn't let user 'worker' do that: " in str(refusal.value)
        assert missing.name in str(refusal.value)
        broker.allow("worker", missing)
    check_topics(kafka, catalog, catalog.rollup)


def test_a_right_that_is_taken_away_stops_the_worker(
    broker: SecureBroker, admin: Settings, secured: dict[str, str], catalog: Catalog, tmp_path: Path
) -> None:
    """The worker ends with one line, as at the start."""
    with Worker(secured, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        broker.forbid("worker", *_worker_grants(admin, catalog))
        line = last_word(worker, HaltError.exit_code)
    assert "do that: " in line
    assert "docs/access.md" in line


def _revoke_password(broker: SecureBroker, _: Issuer) -> None:
    broker.add_user("worker", "another")


def _revoke_client(_: SecureBroker, issuer: Issuer) -> None:
    issuer.revoked = True


@pytest.mark.usefixtures("catalog")
@pytest.mark.parametrize(
    ("login", "revoke", "said"),
    [
        pytest.param("secured", _revoke_password, "refuses user 'worker' or the password; check", id="password"),
        pytest.param("with_tokens", _revoke_client, f"/token refuses client '{CLIENT}': HTTP 401; check", id="client"),
    ],
)
def test_a_login_that_is_revoked_stops_the_worker(
    broker: SecureBroker,
    issuer: Issuer,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    *,
    login: str,
    revoke: Callable[[SecureBroker, Issuer], None],
    said: str,
) -> None:
    """The worker ends with one line when it has to log in again; it waits for a broker that is away before."""
    environ: dict[str, str] = request.getfixturevalue(login)
    try:
        with Worker(environ, tmp_path / "log") as worker:
            worker.wait_until_consuming()
            revoke(broker, issuer)
            broker.bounce()
            line = last_word(worker, HaltError.exit_code)
    finally:
        broker.add_user("worker", _PASSWORD)
        issuer.revoked = False
    assert said in line
    assert _PASSWORD not in worker.log


@pytest.mark.parametrize("command", ["topics plan", "produce --sample 10 --families ui_events"])
@pytest.mark.parametrize("user", ["stranger", "nobody"])
@pytest.mark.usefixtures("catalog")
def test_tools_report_refusals(secured: dict[str, str], chimera: Forked, command: str, user: str) -> None:
    """A tool ends with the worker's line and exit code for a refused login and for a missing ACL."""
    done = chimera(secured | {env_name("kafka", "user"): user}, *command.split())
    said = {"stranger": "doesn't let user 'stranger' do that", "nobody": "refuses user 'nobody' or the password"}[user]
    assert done.returncode == HaltError.exit_code, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert _PASSWORD not in done.stdout + done.stderr


def test_an_operator_plans_and_applies(
    broker: SecureBroker, admin: Settings, secured: dict[str, str], chimera: Forked
) -> None:
    """The ACLs that are documented for operators suffice."""
    prefix = load_catalog(admin).topics[0].name.partition(".")[0]
    topics = (
        AclOperation.DESCRIBE,
        AclOperation.DESCRIBE_CONFIGS,
        AclOperation.CREATE,
        AclOperation.ALTER,
        AclOperation.ALTER_CONFIGS,
    )
    broker.allow(
        "operator",
        *(Grant(ResourceType.TOPIC, prefix, operation, ResourcePatternType.PREFIXED) for operation in topics),
    )
    environ = secured | {env_name("kafka", "user"): "operator"}
    for arguments in (["topics", "plan"], ["topics", "apply", "--yes"], ["topics", "plan"]):
        done = chimera(environ, *arguments)
        assert "chimera: " not in done.stderr
    assert done.returncode == 0


def test_a_client_certificate_is_a_login(broker: SecureBroker, tmp_path: Path) -> None:
    """A broker that requires certificates takes the user from the certificate."""
    certificate = broker.authority.issue_cert("client.example")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(cert)
    certificate.private_key_pem.write_to_path(key)
    kafka = KafkaSettings(
        bootstrap_servers=broker.mtls, security_protocol="SSL", ca_cert=broker.ca_cert, client_cert=cert, client_key=key
    )
    with pytest.raises(HaltError, match="doesn't let this client do that: topic x"):
        TopicAdmin(kafka).ids(["x"])
    assert asyncio.run(_topics_by_aiokafka(kafka)) == set()


async def _topics_by_aiokafka(kafka: KafkaSettings) -> set[str]:
    """Return the topics that the worker's own client sees."""
    auth = credentials_to_aiokafka_auth(faust_credentials(kafka))
    async with AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, **auth) as consumer:
        topics: set[str] = await consumer.topics()
        return topics


@pytest.fixture
def with_tokens(secured: dict[str, str], issuer: Issuer) -> dict[str, str]:
    """Environment of a process that logs in with the issuer's tokens."""
    login = {
        "sasl_mechanism": "OAUTHBEARER",
        "user": CLIENT,
        "password": SECRET,
        "oauth_token_url": f"{issuer.url}/token",
    }
    return secured | {env_name("kafka", key): value for key, value in login.items()}


def test_a_worker_logs_in_with_tokens(
    admin: Settings, with_tokens: dict[str, str], catalog: Catalog, tmp_path: Path
) -> None:
    """Both clients of the worker log in with tokens of an issuer whose key the broker knows."""
    family = catalog.family("episodes")
    careless = KafkaProducer(client_config(admin.kafka))
    careless.produce(family.topic.name, b"neither framing")
    assert careless.flush(30) == 0
    with Worker(with_tokens, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        settled(worker, admin, family, 1)


def test_a_wrong_client_secret_halts(with_tokens: dict[str, str], tmp_path: Path) -> None:
    """The line names the issuer, because the issuer refuses."""
    with Worker(with_tokens | {env_name("kafka", "password"): "hunter2"}, tmp_path / "log") as worker:
        line = last_word(worker, HaltError.exit_code)
    assert f"/token refuses client '{CLIENT}': HTTP 401; check CHIMERA_KAFKA__USER" in line
    assert "hunter2" not in worker.log


def test_one_of_several_brokers_answers(settings: Settings) -> None:
    """One broker that answers is enough, in whatever order the client tries them."""
    down = ",".join(f"127.0.0.1:{free_port()}" for _ in range(4))
    for _ in range(5):
        check_connection(KafkaSettings(bootstrap_servers=f"{down},{settings.kafka.bootstrap_servers}"))


def test_an_issuer_that_is_away_is_waited_for(with_tokens: dict[str, str]) -> None:
    """An absent issuer is no refusal."""
    kafka = _kafka(with_tokens | {env_name("kafka", "oauth_token_url"): f"http://127.0.0.1:{free_port()}/token"})
    with pytest.raises(UnavailableError, match=r"OAuth issuer at .* is not available: .*refused"):
        check_connection(kafka)
    with pytest.raises(KafkaConnectionError, match="is not available"):  # aiokafka retries after this error
        asyncio.run(TokenProvider(Tokens(kafka)).token())
