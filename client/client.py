"""HealthFM at a site: the same as the installed command ``healthfm-client``."""

from healthfm_client.__main__ import main

if __name__ == "__main__":
    raise SystemExit(main())
