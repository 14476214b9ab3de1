"""Every error code: what it means, and what its sentence usually says of a remedy.

To add a code, add its entry here (of 3xx in `ingest_error_codes`, of 8xx in
`trust_error_codes`), then run ``python tests/exit_codes.py > docs/exit-codes.md``.
"""

from __future__ import annotations

from typing import Final

from healthfm_core.error_entry import ErrorCode
from healthfm_core.ingest_error_codes import INGEST_CODES
from healthfm_core.trust_error_codes import TRUST_CODES

CODES: Final[dict[int, ErrorCode]] = {
    # 1xx configuration
    101: ErrorCode("a configuration key is unknown"),
    102: ErrorCode("a configuration value has the wrong type or is out of range", do="Correct it"),
    103: ErrorCode("two configuration values contradict each other"),
    104: ErrorCode("a configuration group or file does not exist"),
    105: ErrorCode(
        "the disk is too full",
        wanted="room on the disk",
        do="Make room, then run the command again",
    ),
    106: ErrorCode(
        "a task's definition cannot be used",
        wanted="an ACES definition of codes that the store has, with a label and a prediction time",
        do="Correct the definition; `describe` names the store's codes",
    ),
    107: ErrorCode(
        "a file or folder cannot be read or written",
        wanted="it is there, and this user may read and write it",
        do="Check the path and who owns it",
    ),
    108: ErrorCode(
        "an optional package that is needed is not installed", wanted="the extra that brings it"
    ),
    # 2xx site store
    201: ErrorCode("a column is missing", do="Add the column, or ingest the source again"),
    202: ErrorCode("a column has the wrong type", do="Repair the source and ingest it again"),
    203: ErrorCode(
        "events are not sorted by subject and time",
        wanted="MEDS 0.4 wants each subject contiguous and sorted by time",
        do="Sort the file, or ingest the source again",
    ),
    204: ErrorCode(
        "an event occurs twice",
        wanted="each one is wanted once",
        do="Remove the duplicates, or ingest the source again",
    ),
    205: ErrorCode(
        "a subject is in two files or two splits",
        wanted="a subject is wanted in one file and one split",
        do="Merge their rows, or ingest the source again",
    ),
    206: ErrorCode(
        "the store is empty",
        wanted="a site with people is wanted",
        do="Check the source, or leave this site out",
    ),
    207: ErrorCode(
        "the store is half-written",
        wanted="a finished store is wanted",
        do="Delete the folder and ingest the source again",
    ),
    208: ErrorCode(
        "the store does not exist or is not a store",
        wanted="a site store is wanted",
        do="Give a folder that `ingest` wrote",
    ),
    209: ErrorCode(
        "a file cannot be read",
        wanted="a whole Parquet file is wanted",
        do="Check the disk and the permissions, or ingest the source again",
    ),
    210: ErrorCode(
        "a subject is unknown",
        wanted="every subject_id is wanted in metadata/subject_splits.parquet",
        do="Ingest the source again",
    ),
    211: ErrorCode("polygenic scores are not normalised"),
    212: ErrorCode(
        "two stores of a site contradict each other about one person",
        wanted="one id is one person in all stores of a site, who counts once",
        do="Ingest the second store again: with --splits-of the first, or, if its ids are of other "
        "people, with --subjects or --key; or join with one of the two",
    ),
    213: ErrorCode(
        "the disk takes no more of what is worked out of a store",
        wanted="room beside the store, about as much as the store's files and their tokens take",
        do="Free some disk and come again; the store is as it was",
    ),
    214: ErrorCode(
        "the store was changed while it was read",
        wanted="a store that stays as it is for as long as its people are tokenised",
        do="Wait until the ingest, update or copy that writes to it is done, and come again",
    ),
    # 3xx ingest
    **INGEST_CODES,
    # 4xx federation
    401: ErrorCode(
        "sites run different protocol versions",
        do="Install the same release of healthfm on both sides",
    ),
    402: ErrorCode(
        "a message is not what the protocol says",
        do="Install the same release of healthfm on both sides",
    ),
    403: ErrorCode(
        "too few sites answered",
        do="Put the sites right; a study's run goes on by itself, a simulation with resume=true",
    ),
    404: ErrorCode(
        "the study is unknown at the site",
        wanted="a prepare message comes before the first order of a study",
        do="Send the study again; the coordinator does so before the next round",
    ),
    405: ErrorCode(
        "the vocabulary differs from the study's",
        wanted="the JSON that Vocabulary.to_json writes",
        do="Install the same release of healthfm on both sides",
    ),
    406: ErrorCode(
        "no site has the data the study needs",
        wanted="a model needs at least one encoder",
        do="Use federation.aggregation.groups=modality, or leave out sites without the modality",
    ),
    407: ErrorCode("a site failed unexpectedly"),
    408: ErrorCode(
        "the study's server cannot be reached", wanted="an answer of the study's server"
    ),
    409: ErrorCode(
        "this machine's clock is too far from the server's",
        do="Switch on time synchronisation (NTP); if it is on, tell the coordinator",
    ),
    410: ErrorCode(
        "the sites' codes hardly meet",
        do="Map codes to the same vocabularies at ingest, or go on all the same with "
        "--even-so (federation.min_shared_codes=0)",
    ),
    411: ErrorCode(
        "the site does not hold the model that a change is of",
        wanted="the model of the round that the order names, as the coordinator has it",
        do="Nothing: the coordinator sends the whole model in the same round",
    ),
    # 5xx site policy
    501: ErrorCode(
        "the site's policy does not permit the request",
        wanted="the site's own rules come first",
        do="Ask the site's administrator, who can change site.yaml",
    ),
    502: ErrorCode(
        "something about a person would be where it may leave the site",
        wanted="a page about a person stays where nothing is sent or handed on",
        do="Name a file in a folder of your own",
    ),
    503: ErrorCode(
        "a person at the site has to approve the run first",
        wanted="a person at the site approves each run",
        do="At the site: healthfm-client requests, then healthfm-client approve RUN",
    ),
    504: ErrorCode(
        "it is outside the hours in which the site works",
        wanted="the hours of its site.yaml",
        do="Wait; the site answers again by itself",
    ),
    505: ErrorCode(
        "the site is paused",
        wanted="its administrator decides when it takes part",
        do="Wait until it goes on",
    ),
    506: ErrorCode(
        "a person at the site denied the run",
        wanted="a person at the site approves each run",
        do="At the site: healthfm-client requests, then healthfm-client approve RUN",
    ),
    507: ErrorCode(
        "what would leave the site cannot be put on record",
        wanted="nothing leaves this site that is not on record",
        do="Make room on the disk, or give the file back to the user healthfm runs as",
    ),
    508: ErrorCode(
        "the site has left the study",
        wanted="its administrator decides when it takes part",
        do="Go on without it",
    ),
    509: ErrorCode(
        "a run asks for something else than what was read",
        wanted="an answer to what the run asks now",
        do="Read it again, then answer",
    ),
    510: ErrorCode(
        "there is no such line in the egress log",
        wanted="a number that a line has",
        do="List them with: healthfm-client audit",
    ),
    # 6xx privacy
    601: ErrorCode(
        "the privacy budget would be exceeded",
        wanted="the site stops before its limit",
        do="The others go on without it; only its administrator can raise the limit",
    ),
    602: ErrorCode(
        "the privacy ledger is damaged",
        wanted="every line as it was written, in its place",
        do="Put the last good copy back; without it nobody knows what was spent",
    ),
    603: ErrorCode(
        "the privacy ledger cannot be read or written",
        wanted="the privacy ledger is written before anything is spent",
        do="Put the file's folder or disk right; nothing was trained",
    ),
    604: ErrorCode(
        "the privacy settings cannot be met by this site",
        wanted="settings that protect each person of this site",
    ),
    610: ErrorCode(
        "keys or shares of secure aggregation are not what they should be",
        wanted="every key is signed and every share is sealed for this session alone",
        do="Look at the coordinator's log",
    ),
    611: ErrorCode(
        "too few sites are left to open a sum",
        do="Wait until more sites are there; a study's run goes on by itself, a simulation with "
        "resume=true",
    ),
    612: ErrorCode(
        "a request would open a single site's update",
        wanted="a sum is opened once, and no site's own update ever",
        do="Ask the coordinator why; nothing was sent",
    ),
    613: ErrorCode(
        "a value cannot be summed securely",
        wanted="finite values within federation.aggregation.secure.clip",
        do="See this site's log of the round; the coordinator can declare another clip",
    ),
    614: ErrorCode(
        "a sum would be of other sites than an earlier sum of the same numbers",
        wanted="the same sites: the difference of two such sums is what the sites sent that differ",
        do="Wait until exactly those sites are there; a round goes on without this sum",
    ),
    615: ErrorCode(
        "the site's record of the sums it helped to open cannot be used",
        wanted="every sum is on record at the site before it is opened",
        do="Put the last good copy of the file back, or its disk right; nothing was opened",
    ),
    # 7xx runs
    701: ErrorCode(
        "there is no run to resume",
        wanted="a run folder holds config.json and checkpoints/",
        do="Name the folder a run was written to",
    ),
    702: ErrorCode(
        "the run was made with another configuration",
        wanted="a run is resumed with the settings it was begun with",
        do="Give the same settings, or another folder",
    ),
    703: ErrorCode(
        "a checkpoint is damaged",
        wanted="a checkpoint is as it was written",
        do="Delete the round's files to resume from the round before, or begin again",
    ),
    704: ErrorCode(
        "the output folder holds another run",
        wanted="a new run needs a folder of its own",
        do="Name another folder, or continue that run (a simulation: resume=true)",
    ),
    705: ErrorCode(
        "the run was interrupted and can be resumed",
        wanted="every finished round is on disk",
        do="A study's run goes on by itself; a simulation with resume=true and out= its folder",
    ),
    706: ErrorCode("the simulation engine did not start", wanted="Ray runs the sites"),
    707: ErrorCode(
        "a model folder is incomplete or damaged",
        do="Export the model again, or copy its folder again, whole",
    ),
    708: ErrorCode("the model was not trained to answer this"),
    709: ErrorCode(
        "the model has no such target", do="Take a code from `targets` in the model's study.json"
    ),
    710: ErrorCode(
        "there is no visit to explain",
        wanted="a visit, or wearing, to look back from",
        do="Ask for a later time, or of somebody with a record",
    ),
    711: ErrorCode(
        "the output file exists already or cannot be written",
        wanted="what is about people is a new file in a folder that is there",
        do="Name another file",
    ),
    712: ErrorCode(
        "the model to start from is of another size",
        wanted="a run that starts from a model has that model's sizes",
        do="Use the model= of the trained model; its card names it",
    ),
    720: ErrorCode(
        "there is no study in the folder",
        wanted="the folder that healthfm-server init made is wanted",
        do="Name it with --study, or go there",
    ),
    721: ErrorCode("a process of the study did not start or stop"),
    722: ErrorCode("the study has no run of that name", do="See: healthfm-server status"),
    723: ErrorCode("the run failed or was stopped"),
    724: ErrorCode(
        "another process works on the run or the study",
        wanted="one at a time",
        do="Wait for it to end, or stop it; if it runs on another machine, there",
    ),
    725: ErrorCode(
        "the run's folder cannot be written",
        wanted="room on the disk, and the right to write there",
        do="Make room; the run continues from its last complete round",
    ),
    726: ErrorCode(
        "training diverged",
        wanted="finite losses and weights",
        do="Lower train.lr (train.lr_memory and train.lr_linear multiply it), or train.clip_norm",
    ),
    727: ErrorCode(
        "no site reported the metric that is searched by",
        wanted="tuning people with and without the outcome at one site at least",
        do="Choose another metric, or sites with more tuning people",
    ),
    728: ErrorCode(
        "a notice was not delivered",
        wanted="a mail server, webhook or desktop that takes it",
        do="Correct notices in study.yaml or site.yaml, and try it with: notices --test",
    ),
    729: ErrorCode(
        "a run's report cannot be made",
        wanted="the run's folder as the run wrote it",
        do="Run on the coordinator's machine, which says more: healthfm-server report RUN",
    ),
    730: ErrorCode(
        "whether a site gains by joining cannot be measured here",
        wanted="a run whose task its model answers, and held-out people enough who train nobody",
        do="Ingest again with a larger share of held-out people, or wait for more of them",
    ),
    731: ErrorCode(
        "a tracker's server does not answer, or refuses what it is sent",
        wanted="a server that takes runs at this address",
        do="Look whether it is up and takes your account, then run the command again: it goes on",
    ),
    732: ErrorCode(
        "the run has no model to compare or promote",
        wanted="a run that is over, with a model in its folder",
        do="Wait until it has ended, or stop it: healthfm-server status says how it stands",
    ),
    733: ErrorCode(
        "no model of the study has that alias",
        do="See: healthfm-server model list",
    ),
    **TRUST_CODES,
}
"""Code → its entry; a number is never used again for something else."""
