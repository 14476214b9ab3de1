"""What an administrator does to a site's processes: start them, stop them for good."""

from __future__ import annotations

from collections.abc import Iterator

from healthfm_client.runtime.site_supervision import LOOPBACK, node_config, supervision, write_units
from healthfm_client.site.site_home import SiteHome
from healthfm_core.data.store.beside_store import remove_beside
from healthfm_core.errors import HealthFMError, PolicyError
from healthfm_core.service_units import say_of_root
from healthfm_core.supervised_start import refuse_copy, refuse_taken_port
from healthfm_core.supervision import Supervision
from healthfm_core.trust.certificates import check_valid_now


def refuse_after_leaving(home: SiteHome) -> None:
    """Refuse to start what would refuse every message.

    Raises:
        PolicyError: The site has left the study (HF-508).
    """
    if home.state() == "left":
        do = "To take part again: healthfm-client resume, then healthfm-client join"
        raise PolicyError(508, where=str(home.path), do=do)


def prepare(home: SiteHome) -> Iterator[str]:
    """Make ready what the processes need, end them where they run, and yield what was done.

    Raises:
        HealthFMError: Something of the site's folder cannot be used, or its port is another's.
    """
    if closed := home.close_to_others():
        yield f"{closed} files and folders of the site could be read by others: closed"
    check_valid_now(home.kit().certificate, where="certificate")
    home.tls()
    node_config(home)
    home.secret()
    for path in write_units(home):
        yield f"written for the administrator: {path}"
    if warning := say_of_root(home.path):
        yield warning
    supervisor = supervision(home)
    refuse_copy(supervisor.folder, "keys/node.key")
    if supervisor.runs():
        supervisor.stop()
    do = "End that program, or join with another port: --port PORT"
    refuse_taken_port(LOOPBACK, home.settings().port, do)


def start(home: SiteHome) -> Supervision:
    """Start the processes that `prepare` made ready; return once each of them runs.

    Raises:
        RunError: One does not start, or ends again and again (HF-721).
    """
    supervisor = supervision(home)
    supervisor.start()
    supervisor.wait_until_running()
    return supervisor


def what_stands_in_the_way(home: SiteHome) -> HealthFMError | None:
    """Return the first thing between this site and its study; None where the study answers it.

    Raises:
        HealthFMError: It is of a kind that ends the look.
    """
    from healthfm_client.doctor import connectivity

    errors = (finding.error for finding in connectivity.look(home))
    return next((error for error in errors if error is not None), None)


def leave(home: SiteHome) -> int:
    """Refuse from now on (HF-508), stop this site's processes, and remove its stores' tokens.

    Returns:
        Bytes of the tokens that lay beside the stores.

    Raises:
        RunError: They do not stop (HF-721).
    """
    home.set_state("left")
    supervisor = supervision(home)
    if supervisor.config.exists() and supervisor.runs():
        supervisor.stop()
    joined = home.settings().stores if home.settings_file.is_file() else ()
    return sum(remove_beside(choice.path) for choice in joined)
