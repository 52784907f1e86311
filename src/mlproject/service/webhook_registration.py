"""MLflow's webhooks that trigger a `watch`: registered, and tested; no Spark.

What MLflow's server does. Source: mlflow 3.17.2, mlflow/server/handlers.py, webhooks/delivery.py
- Handlers of its REST API send events, from a queue in memory and ten threads to a process: a
  killed server loses them, and no server sends any for a database that is used directly.
- Each of its processes keeps the list of webhooks for 60 s (MLFLOW_WEBHOOK_CACHE_TTL): a new
  webhook or secret may be that late. Moves of stages have no event, nor has a deleted model.
- Without a secret it signs nothing. Secrets are encrypted with
  MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY, else with a key that every process makes up when it
  starts. Then another process can read no webhook: listing, changing and deleting return 500,
  and *no* webhook of those events is delivered. So all is lost after a restart, and most at
  once with the four workers that are MLflow's default: of 40 moves of an alias 5 were delivered.
"""

import os
import re

from mlflow import MlflowClient
from mlflow.entities.webhook import Webhook
from mlflow.exceptions import MlflowException
from mlflow.utils import get_results_from_paginated_fn
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from mlproject.errors import UserError, first_line
from mlproject.service.webhook_listener import PATH

NAME = "mlproject-watch"
SECRET = "MLPROJECT_WEBHOOK_SECRET"  # noqa: S105 - the variable's name, not the secret
SECRET_CHARACTERS = 16  # at least: one delivery is enough to guess at it offline

TRIES = 12  # if two workers respond at random, one is missed once in 4,096
KEY = (
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY=$(python -c 'from cryptography.fernet import Fernet; "
    "print(Fernet.generate_key().decode())')"
)

PAGE = 100  # webhooks in one response

# Aliases have events, and stages have none.
EVENTS = ("model_version_alias.created", "model_version_alias.deleted")


def secret_of_environment() -> str:
    """The secret that MLflow signs with: from the environment, as MLflow records parameters.

    Raises:
        UserError: It is not set, or too short.
    """
    secret = os.environ.get(SECRET, "").strip()
    if len(secret) < SECRET_CHARACTERS:
        state = f"shorter than {SECRET_CHARACTERS} characters" if secret else "not set"
        raise UserError(
            f"{SECRET} is {state}. Make one, and set it for every start of the watch: "
            f"export {SECRET}=$(python -c 'import secrets; print(secrets.token_hex(32))')"
        )
    return secret


def register(client: MlflowClient, url: str, secret: str) -> str:
    """Makes the server's one webhook of our name or of this URL, or brings it up to date.

    The server then sends a test event, which triggers too. That can take two minutes if nothing
    responds at the URL, which is https://HOST/mlflow as the server reaches it.

    Returns:
        One line: why events do not arrive, or not all. Empty when the test event did.

    Raises:
        UserError: The server refuses the webhook; the message has the setting it needs.
    """
    registry = str(client._registry_uri)
    if not re.match(r"https?://", registry):
        # It would write the row with a key of its own, which no server can decrypt.
        raise UserError(
            f"{registry!r} is not an MLflow server, which alone sends webhooks. Leave webhook out, "
            "or run: mlflow server --backend-store-uri ..., and set MLFLOW_TRACKING_URI"
        )
    wanted = {"url": url, "events": list(EVENTS), "secret": secret, "status": "ACTIVE"}
    try:
        hooks = get_results_from_paginated_fn(client.list_webhooks, PAGE)
        found = [hook for hook in hooks if hook.name == NAME]
        found = found or [hook for hook in hooks if hook.url == url][:1]
        for double in found[1:]:  # two watches started at once
            client.delete_webhook(double.webhook_id)
        if found:
            hook = client.update_webhook(found[0].webhook_id, name=NAME, **wanted)
        else:
            hook = client.create_webhook(NAME, **wanted)
    except MlflowException as error:
        raise UserError(f"Webhook {url!r} cannot be registered: {_need(error)}") from error
    return _problem(client, hook)


def _need(error: MlflowException) -> str:
    """What the server needs, in one line."""
    reason = first_line(error)
    if "URL scheme" in reason:
        return (
            f"{reason} Put https before the receiver, or start the MLflow server with "
            "MLFLOW_WEBHOOK_ALLOWED_SCHEMES=https,http"
        )
    if "non-public IP" in reason:
        return f"{reason} Start the MLflow server with MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true"
    if "500 error responses" in reason:
        return (
            "the MLflow server cannot decrypt its webhooks (HTTP 500): it was started without the "
            f"key, or with another one. Start it with the earlier key; or use a new one at every "
            f"start ({KEY}), and delete the webhooks in its database: "
            "UPDATE webhooks SET deleted_timestamp = 1"
        )
    return reason


def _read(client: MlflowClient, hook: Webhook) -> int:
    """HTTP status of reading a webhook, by a connection of its own: any worker may respond."""
    path = f"/api/2.0/mlflow/webhooks/{hook.webhook_id}"
    alone = {"Connection": "close"}
    creds = get_default_host_creds(client._registry_uri)
    response = http_request(creds, path, "GET", extra_headers=alone, max_retries=0, retry_codes=())
    return int(response.status_code)


def _problem(client: MlflowClient, hook: Webhook) -> str:
    """Why events do not arrive, in one line; empty when a test event does."""
    try:
        unread = sum(_read(client, hook) == 500 for _ in range(TRIES))
        if unread:
            return (
                f"The MLflow server could read the webhook in {TRIES - unread} of {TRIES} tries: "
                f"its workers have different keys. Start it always with the same key: {KEY}"
            )
        result = client.test_webhook(hook.webhook_id)
    except MlflowException as error:
        return f"The MLflow server cannot send to {hook.url!r}: {_need(error)}"
    if result.response_status == 204:
        return ""
    message = result.error_message or f"HTTP {result.response_status} {result.response_body or ''}"
    reason = " ".join(message.rpartition("Caused by ")[2].split())[:200].rstrip("\\\"')")
    hint = {
        401: "Compare the secrets and clocks of both machines",
        404: f"The path of the URL must be {PATH}",
    }.get(result.response_status, "Check that the MLflow server can reach it")
    return f"A test event did not arrive at {hook.url!r} ({reason}). {hint}"
