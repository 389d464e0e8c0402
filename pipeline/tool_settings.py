"""Settings of the tools beside the data path: the monitor and the backups; `config.py` reads them with the others."""

from pydantic import Field, SecretStr

from pipeline.forms import Host, HttpUrl, Port, RemoveCommand, Seconds, Secret, Servers, SettingsSection, Text


class MonitorSettings(SettingsSection):
    """The monitor, `chimera monitor`: its web server and its looks at the servers."""

    web_host: Host = "127.0.0.1"
    web_port: Port = 6067
    interval_seconds: Seconds = Field(5.0, description="time between two looks at a server")
    answer_seconds: Seconds = Field(4.0, description="longest wait of a look for an answer")
    workers: Servers | None = Field(
        None, description="host:port of workers whose addresses in the group aren't those that the monitor reaches"
    )
    backup_old_seconds: Seconds = Field(7200.0, description="age from which the last backup is too old")


class BackupSettings(SettingsSection):
    """Destination of backups, as the ClickHouse server sees it."""

    disk: str = Field("backups", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="disk of the ClickHouse server")
    s3_url: HttpUrl | None = Field(None, description="folder in a bucket, in the place of the disk")
    s3_access_key: Text | None = Field(None, description="without one, the server's own credentials are used")
    s3_secret_key: Secret = SecretStr("")
    s3_attempts: int = Field(
        12, ge=1, le=1000, description="attempts of each request to S3, about half a minute in all by default"
    )
    remove_command: RemoveCommand | None = Field(
        None, description="command that removes a backup's files, with {name} in the place of its name"
    )
