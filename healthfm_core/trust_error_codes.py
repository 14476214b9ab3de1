"""The error codes of trust, 8xx: keys, certificates, contracts, tokens and who may ask for what."""

from __future__ import annotations

from typing import Final

from healthfm_core.error_entry import ErrorCode

TRUST_CODES: Final[dict[int, ErrorCode]] = {
    # 8xx trust
    801: ErrorCode(
        "a key, certificate or kit file exists already",
        wanted="a key, a certificate or a kit is never overwritten",
        do="Name another folder, or move the old one away if it is no longer needed",
    ),
    802: ErrorCode(
        "a key file is missing, damaged or open to others",
        wanted="the file as it was written when the keys were made, mode 600",
        do="Put it back from a backup, or enrol anew with new keys",
    ),
    803: ErrorCode(
        "a certificate was not issued by this study's root",
        wanted="a certificate that this study's root signed",
        do="Ask the coordinator for a new kit, and compare the root's ten words with them",
    ),
    804: ErrorCode(
        "a certificate is expired or not yet valid",
        do="Check the clock; if it is right, ask the coordinator for a new kit",
    ),
    805: ErrorCode("a certificate is revoked"),
    806: ErrorCode(
        "a request or kit file is not what it should be",
        wanted="the file as healthfm wrote it",
        do="Have it sent again, as an attachment that no mail program changes",
    ),
    807: ErrorCode(
        "a request does not prove that its sender has the keys",
        wanted="a request signed by each key that it names",
        do="Ask the site to send it again, and compare the ten words with them",
    ),
    808: ErrorCode(
        "a kit was not signed by the study",
        wanted="the kit that the coordinator made for this site's request",
        do="Ask the coordinator to send it again",
    ),
    809: ErrorCode("a fingerprint differs"),
    810: ErrorCode("a name, address or host cannot be used", do="Write it as the others do"),
    811: ErrorCode(
        "a site is not registered",
        wanted="a site whose request was signed",
        do="List the sites with: healthfm-server site list",
    ),
    812: ErrorCode(
        "a site of that name is registered already",
        wanted="each site and each node once",
        do="Give it another name with --name, or renew the site that is there with --renew",
    ),
    813: ErrorCode(
        "a contract is not signed",
        wanted="a contract that the study's signer signed comes with it",
        do="Start the run with healthfm-server run, which signs a new contract",
    ),
    814: ErrorCode(
        "a contract was altered",
        wanted="the contract is the one that was signed",
        do="Start the run with healthfm-server run, which signs a new contract",
    ),
    815: ErrorCode(
        "a contract was signed by another than the study's signer",
        wanted="the signer is the one in this site's kit",
        do="Start the run with healthfm-server run, which signs a new contract",
    ),
    816: ErrorCode(
        "a contract has expired",
        wanted="a contract that holds now, by this site's clock",
        do="Set both clocks right; the coordinator sends a new contract with the next request",
    ),
    817: ErrorCode(
        "a contract is not valid yet",
        wanted="a contract that holds now, by this site's clock",
        do="Set both clocks right; the coordinator sends a new contract with the next request",
    ),
    818: ErrorCode(
        "a contract was used before",
        wanted="each contract is used once",
        do="Start the run with healthfm-server run, which signs a new contract",
    ),
    819: ErrorCode(
        "a contract is of another study",
        wanted="a contract of the study that this site is enrolled in",
        do="Start the run with healthfm-server run, which signs a new contract",
    ),
    820: ErrorCode(
        "a site answers from a node that is not its own",
        wanted="a site answers from the node it registered",
    ),
    821: ErrorCode(
        "a name has a token already, or has none", wanted="each name has one token at most"
    ),
    822: ErrorCode(
        "a record of what left a site, or of what was done to a study, was changed",
        wanted="every line as it was written, none missing",
        do="Keep the file as it is, and find out with your security office who changed it",
    ),
    823: ErrorCode(
        "an order is for another site",
        wanted="each site takes its own orders alone",
        do="Find out who else can write to the coordinator's SuperLink; the next round brings a "
        "new order",
    ),
    824: ErrorCode(
        "an order was given before",
        wanted="each order is taken once, so that what it costs is paid once",
        do="Find out who else can write to the coordinator's SuperLink; the next round brings a "
        "new order",
    ),
    825: ErrorCode(
        "an order came too late",
        wanted="an order that the coordinator still waits for, by this site's clock",
        do="Set both clocks right; the next round brings a new order",
    ),
    826: ErrorCode(
        "a site says that it has more people than was agreed",
        wanted="no more training subjects than were agreed when it was admitted",
        do="Ask the site; if it has grown: healthfm-server site sign --renew --most-subjects N",
    ),
    839: ErrorCode(
        "sites still stand on the older root",
        wanted="every site that is not revoked on the new root",
        do="Wait until status says so: a connected site takes it within minutes; for one that is "
        "gone: site revoke, a new kit by hand, or rotate retire --force",
    ),
    830: ErrorCode(
        "the site has no kit",
        wanted="the kit that the coordinator sent back is needed",
        do="Give it once: healthfm-client join --kit FILE --root TEN WORDS",
    ),
    831: ErrorCode(
        "a request to a page or its API cannot be used",
        do="Correct it; /api/v1/openapi.json describes each",
    ),
    832: ErrorCode(
        "a form was sent by another page than this one's own",
        wanted="a form that this session's page showed",
        do="Open the page again and send the form from there",
    ),
    833: ErrorCode(
        "a run is ordered for a site that was revoked",
        wanted="sites that are admitted",
        do="Leave it out, or admit it again: healthfm-server site sign REQUEST --renew",
    ),
    834: ErrorCode(
        "the provider that people sign in by cannot be used",
        wanted="an OpenID Connect provider that answers as sign_in in study.yaml has it",
        do="Check sign_in in study.yaml and whether the provider is up; a token needs no provider",
    ),
    835: ErrorCode(
        "a person whom the provider knows has no role here",
        wanted="an account that sign_in in study.yaml gives a role",
        do="Ask the coordinator for a role, or sign in with a token",
    ),
}
