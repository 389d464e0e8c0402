"""Example for Airflow 3: a full backup each night, an incremental one each hour, a verification each night.

Airflow's workers have the package, and the settings for Kafka, ClickHouse and backups in their environment.
"""

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

_COMMANDS = {
    "chimera_backup_full": ("30 0 * * *", ["chimera backup create --full --json"]),
    "chimera_backup_incremental": ("0 * * * *", ["chimera backup create --incremental --json"]),
    "chimera_backup_keep": (
        "20 3 * * *",
        ["chimera backup verify --json", "chimera backup prune --keep-days 14 --execute --json"],
    ),
}

for name, (schedule, commands) in _COMMANDS.items():
    with DAG(
        dag_id=name,
        schedule=schedule,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        default_args={"retries": 2, "retry_delay": timedelta(minutes=2)},
    ) as dag:
        before = None
        for number, command in enumerate(commands):
            task = BashOperator(task_id=f"step_{number}", bash_command=command)
            if before is not None:
                before >> task
            before = task
    globals()[name] = dag
