"""What the tests' provider says of a person: groups in the ID token, teams in UserInfo alone."""

from __future__ import annotations

from oauth2_provider.oauth2_validators import OAuth2Validator


class GroupClaims(OAuth2Validator):
    oidc_claim_scope = None

    def get_additional_claims(self, request):
        groups = [group.name for group in request.user.groups.all()]
        return {"preferred_username": request.user.username, "groups": groups}

    def get_userinfo_claims(self, request):
        claims = super().get_userinfo_claims(request)
        return {**claims, "teams": claims["groups"]}
