from pathlib import Path

import pytest
import yaml

from healthfm_core.config import ModelConfig, RunConfig
from healthfm_core.config.compose import GROUPS, compose, options, packaged_configs, to_yaml
from healthfm_core.errors import ConfigError

FILES = sorted(f for f in packaged_configs().glob("*/*.yaml") if f.parent.name != "tune")
"""The groups' files; those of tune/ are plans of searches (tests/simulations/test_tune.py)."""


def refusal(*overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    return caught.value


def test_the_packaged_groups_are_the_schema_s_groups():
    assert {file.parent.name for file in FILES} == set(GROUPS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}={file.stem}")
def test_every_file_composes(file: Path):
    named = ["evaluation.task=back"] if file.stem == "label_tabular" else []
    assert isinstance(compose([f"{file.parent.name}={file.stem}", *named]), RunConfig)


@pytest.mark.parametrize(
    "file",
    # A model file states a whole row; attention_alone takes back what a data file chose.
    [f for f in FILES if f.parent.name != "model" and f.stem != "attention_alone"],
    ids=lambda file: f"{file.parent.name}={file.stem}",
)
def test_every_value_in_a_file_differs_from_the_default(file: Path):
    values = yaml.safe_load(file.read_text()) or {}
    values.pop("defaults", None)  # the files that it goes on from
    is_global = "@package _global_" in file.read_text()
    default = RunConfig().model_dump(mode="json")
    same = same_as_default(values, default if is_global else default[file.parent.name])
    assert same == []


def same_as_default(values, default, prefix=""):
    found = []
    for key, value in values.items():
        if isinstance(value, dict) and default[key]:
            found += same_as_default(value, default[key], f"{prefix}{key}.")
        elif value == default[key]:
            found.append(prefix + key)
    return found


def test_every_model_file_states_the_same_row_of_sizes():
    rows = {
        file.stem: yaml.safe_load(file.read_text()) for file in FILES if file.parent.name == "model"
    }
    assert {name: row["name"] for name, row in rows.items()} == {name: name for name in rows}
    assert len({tuple(row) for row in rows.values()}) == 1


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("tiny", (2, 64, 4, 256)),
        ("demo", (4, 128, 4, 512)),
        ("small", (8, 512, 8, 2048)),
        ("paper", (24, 1024, 16, 4096)),
    ],
)
def test_sizes_are_those_of_the_design(name, size):
    model = compose([f"model={name}"]).model
    assert (model.layers, model.width, model.heads, model.ffn) == size


def test_the_demo_model_is_the_schema_s_default():
    assert compose(["data=stores", "data.stores=[a]", "model=demo"]).model == ModelConfig()


def test_every_yaml_opens_with_its_command():
    for file in [packaged_configs() / "simulate.yaml", *FILES]:
        lines = [line for line in file.read_text().splitlines() if "@package" not in line]
        assert lines[0].startswith(("# healthfm-simulate", "# make simulate")), file


def test_without_overrides_the_cohort_composes():
    config = compose([])
    assert config.data.source == "cohort"
    assert config.name == "cohort"


def test_a_data_file_brings_its_own_settings():
    config = compose(["data=physionet2012"])
    assert config.evaluation.task == "in_hospital_mortality"
    assert config.data.source == "physionet2012"


def groups_of_its_own(folder: Path) -> Path:
    (folder / "data").mkdir()
    (folder / "model").mkdir()
    (folder / "simulate.yaml").write_text(
        "defaults: [_self_, {data: a}, {model: null}]\nseed: 1\nname: root\n"
    )
    (folder / "data" / "a.yaml").write_text(
        "# @package _global_\n"
        "name: a\nmodel: {name: a, layers: 7, dropout: 0.3}\ntrain: {lr: 0.5}\n"
    )
    (folder / "model" / "tiny.yaml").write_text("{name: tiny, layers: 2}\n")
    return folder


def test_data_is_stronger_than_the_root_and_weaker_than_the_other_groups(tmp_path):
    folder = groups_of_its_own(tmp_path)
    plain = compose([], folder)
    assert (plain.seed, plain.name, plain.model.layers, plain.train.lr) == (1, "a", 7, 0.5)
    tiny = compose(["model=tiny", "data=a"], folder)
    assert (tiny.model.name, tiny.model.layers, tiny.model.dropout) == ("tiny", 2, 0.3)


@pytest.mark.parametrize("order", [1, -1])
def test_a_value_on_the_command_line_wins_wherever_it_stands(tmp_path, order):
    given = ["data=a", "train.lr=1e-4", "model=tiny", "model.layers=3"][::order]
    config = compose(given, groups_of_its_own(tmp_path))
    assert (config.train.lr, config.model.layers) == (1e-4, 3)


def test_a_network_that_is_named_wins_over_the_one_that_a_train_file_brings():
    given = ["data=stores", "data.stores=[a]", "train=label_tabular", "evaluation.task=back"]
    assert compose(given).model.name == "tabular"
    assert compose([*given, "model=tiny"]).model.name == "tiny"


def test_nhanes_and_ones_own_tables_learn_a_label_alike():
    given = ["data=stores", "data.stores=[a]", "train=label_tabular", "evaluation.task=back"]
    own, nhanes = compose(given), compose(["data=nhanes"])
    assert own.model == nhanes.model
    assert own.federation == nhanes.federation
    assert own.train.model_copy(update={"label_task": "five_year_death_all"}) == nhanes.train
    assert own.tokens.model_copy(update={"device": "activity_daily"}) == nhanes.tokens


def test_short_names():
    config = compose(["rounds=3", "out=runs/a b(1)=c", "resume=true", "sites=region", "seed=5"])
    assert config.federation.rounds == 3
    assert config.out == "runs/a b(1)=c"
    assert config.resume is True
    assert config.sites == "region"
    assert config.seed == 5


def test_text_stays_text():
    assert compose(["sites=7"]).sites == "7"
    assert compose(["out=null"]).out is None
    assert compose(["out='it'"]).out == "it"
    assert compose(["out=it's"]).out == "it's"
    assert compose(["data.path=c:\\new"]).data.path == "c:\\new"


def test_lists_and_open_keys():
    config = compose(["simulation.arms=[federated,local]", "data.modalities.micu=[ehr]"])
    assert config.simulation.arms == ("federated", "local")
    assert config.data.modalities == {"micu": ("ehr",)}


def test_a_whole_section_can_be_given():
    given = ["train.objectives={label: 1}", "evaluation.task=back"]
    assert compose(given).train.objectives.label == 1.0


@pytest.mark.parametrize(
    ("override", "number", "tells"),
    [
        ("train.lrr=1", 101, "the nearest one is train.lr"),
        ("lr=1", 101, "the nearest one is train.lr"),
        ("modl=tiny", 101, "the nearest one is model"),
        ("round=3", 101, "the nearest one is rounds"),
        ("train.objectives={labl: 1}", 101, "the nearest one is train.objectives.label"),
        ("+rouns=3", 101, "the nearest one is rounds"),
        ("bogus", 101, "key=value"),
        ("~data", 101, "key=value"),
        ("=3", 101, "key=value"),
        ("train.lr=fast", 102, "'fast' was given"),
        ("train.lr=-1", 102, "greater than 0"),
        ("train.lr=[", 102, "'[' was given"),
        ("train.lr=${oc.env:NO_SUCH_VARIABLE}", 102, "NO_SUCH_VARIABLE"),
        ("train.lr=nan", 102, "finite"),
        ("seed=1,2", 102, "'1,2' was given"),
        ("data.source=mimic", 102, "'physionet2012'"),
        ("simulation.arms=[fed]", 102, "simulation.arms.0"),
        ("model.heads=3", 103, "width must be a multiple of heads"),
        ("train.horizons_days=[90,30]", 103, "each further than the one before"),
        ("train.horizons_days=[0,30]", 103, "each further than the one before"),
        ("train.horizons_days=[]", 102, "at least 1"),
        ("model=tinny", 104, "demo, paper, small, tiny"),
        ("data=", 104, "cohort"),
        ("train=../model/tiny", 104, "multitask"),
    ],
)
def test_a_wrong_override_is_one_sentence_with_a_code(override, number, tells):
    error = refusal(override)
    assert error.number == number
    assert tells in str(error)
    assert "\n" not in str(error)


def test_a_forecast_beyond_the_last_edge_is_refused_before_anything_is_trained():
    asked = ["train.objectives.time_to_event=1", "evaluation.horizons_days=[365,1825]"]
    error = refusal(*asked)
    assert error.number == 103
    assert error.do == "Write train.horizons_days=[30,90,180,365,730,1825]"
    edges = "train.horizons_days=[30,90,180,365,730,1825]"
    assert compose([*asked, edges]).train.horizons_days[-1] == 1825
    sampled = ["train.objectives.next_event=1", "evaluation.horizon_queries=one_per_person"]
    compose([*asked[1:], *sampled, "evaluation.estimators=[sample,query]"])


def test_the_packaged_forecasts_reach_their_five_years():
    config = compose(["evaluation=forecasts"])
    assert config.train.horizons_days[-1] >= max(config.evaluation.horizons_days) == 1825


def test_a_broken_file_is_named(tmp_path):
    folder = groups_of_its_own(tmp_path)
    (folder / "model" / "tiny.yaml").write_text("name: [\n")
    with pytest.raises(ConfigError, match="HF-102") as caught:
        compose(["model=tiny"], folder)
    assert "tiny.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_key_in_a_file_is_refused(tmp_path):
    folder = groups_of_its_own(tmp_path)
    (folder / "model" / "tiny.yaml").write_text("layerz: 2\n")
    with pytest.raises(ConfigError, match=r"HF-101.*model\.layers"):
        compose(["model=tiny"], folder)


def test_a_folder_without_a_root_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"HF-104.*simulate\.yaml"):
        compose([], tmp_path)


def test_options_are_the_files():
    assert options("model") == ("demo", "paper", "small", "tiny")


def test_the_whole_configuration_survives_yaml():
    config = compose(["data=nhanes", "out=a: b"])
    assert RunConfig.model_validate(yaml.safe_load(to_yaml(config))) == config
