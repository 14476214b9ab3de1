"""Run one of the site's two processes: the node or the worker.

``python -m healthfm_client.runtime.site_process node|worker --site DIR`` is what the supervisor
calls. The node imports no PyTorch.
"""

from __future__ import annotations

import argparse
import logging
import os
import threading
import time
from pathlib import Path
from typing import Final

from healthfm_client.runtime.site_supervision import node_config
from healthfm_client.site.site_folder import address_of
from healthfm_client.site.site_home import SiteHome
from healthfm_core.federation.environment import keep_quiet
from healthfm_core.owner_only import owner_only
from healthfm_core.supervision import die_with_supervisor
from healthfm_core.trust.site_keys import SiteKeys

AGAIN_S: Final = 3.0
"""Pause before a node that was refused ends, and is started again."""
LOOK_S: Final = 0.5
"""Between two looks whether the run that is computed was stopped."""

_log = logging.getLogger(__name__)


def serve_node(site: SiteHome) -> None:
    """Be the node: ask the coordinator for work, for ever; a refusal is tried again."""
    from healthfm_client.runtime.certificate_renewal import keep_valid
    from healthfm_client.runtime.flower_processes import NodeSettings, run_node
    from healthfm_client.runtime.refused_connection import note_refusal
    from healthfm_client.runtime.site_notices import tell_until
    from healthfm_client.runtime.study_answers import AnswerNotes

    settings, kit, tls = site.settings(), site.kit(), site.tls()
    if settings.proxy is not None:
        os.environ["HTTPS_PROXY"] = settings.proxy
    site.stopped.mkdir(parents=True, exist_ok=True)
    proxy = os.environ.get("HTTPS_PROXY")
    threading.Thread(target=keep_valid, args=(site, tls, proxy), daemon=True).start()
    threading.Thread(target=tell_until, args=(threading.Event(), site), daemon=True).start()
    try:
        run_node(
            NodeSettings(
                address=address_of(kit),
                tls=tls,
                key=SiteKeys.load(site.keys).node,
                secret=site.secret(),
                port=settings.port,
                config=node_config(site),
                stopped=lambda run_id: (site.stopped / str(run_id)).touch(),
                answered=AnswerNotes(site.process).answered,
            )
        )
    finally:
        _log.warning("the connection has ended and is made again: %s", note_refusal(site))
        time.sleep(AGAIN_S)


def serve_worker(site: SiteHome) -> None:
    """Be the worker: compute what the node received, until killed or the run is stopped."""
    from healthfm_client.app import app
    from healthfm_client.runtime.flower_processes import Worker

    worker = Worker(site.settings().port, site.secret(), app)
    threading.Thread(target=_end_when_stopped, args=(site, worker), daemon=True).start()
    worker.run()


def _end_when_stopped(site: SiteHome, worker: object) -> None:
    """End the process, and so its computing, when the run it works for was stopped."""
    while True:
        time.sleep(LOOK_S)
        run_id = getattr(worker, "run_id", None)
        if run_id is not None and (site.stopped / str(run_id)).exists():
            _log.warning("the run was stopped by the coordinator: its computing ends here")
            os._exit(1)


PROCESSES: Final = {"node": serve_node, "worker": serve_worker}


def main() -> None:
    """Serve until killed; an end of its own is a failure, so that it is started again."""
    parser = argparse.ArgumentParser(prog="healthfm_client.runtime.site_process")
    parser.add_argument("process", choices=tuple(PROCESSES))
    parser.add_argument("--site", type=Path, required=True)
    given = parser.parse_args()
    keep_quiet()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for name in ("httpx", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    site = SiteHome(given.site)
    die_with_supervisor(site.process)
    with owner_only():
        PROCESSES[given.process](site)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
