"""A real OpenID Connect provider, Django OAuth Toolkit, in a process of its own.

``python -m tests.page.oidc_provider FOLDER PORT`` serves it on loopback.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx

PASSWORD = "made-up"
CLIENT, SECRET = "healthfm", "a secret of the client's"
GROUPS = {"ada": ["research-leads"], "vera": ["research", "staff"], "otto": ["staff"]}
"""Person → groups, as a directory has them."""
FORM = """<form method="post">{% csrf_token %}<input type="hidden" name="next" value="{{ next }}">
<label>Name <input id="user" name="username"></label>
<label>Password <input id="password" name="password" type="password"></label>
<button id="go">Sign in</button></form>"""


@contextmanager
def provider(folder):
    """Yield the issuer of a provider that is up."""
    from tests.deploy.serving import PATIENCE_S, free_port  # here: its own process needs no PyTorch

    port = free_port()
    issuer = f"http://127.0.0.1:{port}/o"
    folder.mkdir()
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-m", __spec__.name, str(folder), str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    try:
        end = time.monotonic() + PATIENCE_S
        while not _answers(issuer):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end
            time.sleep(0.05)
        yield issuer
    finally:
        process.terminate()
        process.wait()


def _answers(issuer):
    try:
        url = f"{issuer}/.well-known/openid-configuration"
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


def signing_key():
    """Return a key in PEM."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def serve(folder, port):
    """Serve until terminated."""
    import django
    from django.conf import settings

    apps = ("auth", "contenttypes", "sessions", "oauth2_provider")
    settings.configure(
        MIGRATION_MODULES=dict.fromkeys(apps),  # the tables as they are now, in one step
        SECRET_KEY="for tests alone",
        ALLOWED_HOSTS=["127.0.0.1"],
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "provider.db"}
        },
        INSTALLED_APPS=[
            *("django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"),
            "oauth2_provider",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        ROOT_URLCONF=__name__,
        LOGIN_URL="/login/",
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "OPTIONS": {
                    "loaders": [
                        ("django.template.loaders.locmem.Loader", {"registration/login.html": FORM})
                    ],
                    "context_processors": ["django.template.context_processors.request"],
                },
            }
        ],
        USE_TZ=True,
        OAUTH2_PROVIDER={
            "OIDC_ENABLED": True,
            "OIDC_ISS_ENDPOINT": f"http://127.0.0.1:{port}/o",
            "OIDC_RSA_PRIVATE_KEY": signing_key(),
            "OAUTH2_VALIDATOR_CLASS": "tests.page.oidc_claims.GroupClaims",
            "PKCE_REQUIRED": True,
            "SCOPES": {"openid": "who you are", "profile": "your name", "email": "your address"},
        },
    )
    django.setup()
    from django.core.management import call_command

    call_command("migrate", run_syncdb=True, verbosity=0)
    _fill()
    call_command("runserver", f"127.0.0.1:{port}", use_reloader=False)


def _fill():
    from django.contrib.auth.models import Group, User
    from oauth2_provider.models import Application

    for name, groups in GROUPS.items():
        user = User.objects.create_user(name, f"{name}@hospital.example", PASSWORD)
        user.groups.set([Group.objects.get_or_create(name=group)[0] for group in groups])
    Application.objects.create(
        name="HealthFM",
        client_id=CLIENT,
        client_secret=SECRET,
        client_type=Application.CLIENT_CONFIDENTIAL,
        authorization_grant_type=Application.GRANT_AUTHORIZATION_CODE,
        redirect_uris="http://127.0.0.1/sign-in/provider/back",
        skip_authorization=True,
        algorithm=Application.RS256_ALGORITHM,
    )


def _urls():
    from django.contrib.auth.views import LoginView
    from django.urls import include, path

    return [
        path("login/", LoginView.as_view()),
        path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
    ]


def __getattr__(name):
    """Make the addresses once Django asks for them: they need its settings."""
    if name == "urlpatterns":
        return _urls()
    raise AttributeError(name)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
