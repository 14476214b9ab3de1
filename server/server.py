"""HealthFM at the coordinator: the same as the installed command ``healthfm-server``."""

from healthfm_server.__main__ import main

if __name__ == "__main__":
    raise SystemExit(main())
