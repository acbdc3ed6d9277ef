"""Every option of every group composes and builds what it names."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from hyperlock.experiment.simulation import build_scheme, load_dataset
from hyperlock.settings.construct import target as target_of
from hyperlock.settings.parse import parse
from hyperlock.settings.schema import SCHEMAS, register

CONF = Path(__file__).parents[2] / "conf"
GROUPS = (
    "dataset",
    "split",
    "model",
    "federation",
    "encryption",
    "keys",
    "runtime",
    "tracking",
    "experiment",
    "debug",
)
OPTIONS = [(group, file.stem) for group in GROUPS for file in sorted((CONF / group).glob("*.yaml"))]


@pytest.fixture(autouse=True)
def hydra(monkeypatch):
    monkeypatch.setenv("HYPERLOCK_ROOT", str(CONF.parent))
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_an_option_composes_parses_and_gives_a_scheme(group, option):
    server = ["runtime.folder=/tmp/server", "runtime.weight_unit=100"]
    extra = {
        "npz": ["dataset.path=/tmp/some.npz"],
        "own": [f"{group}._target_=some.function"],
        "flower": server,
        "sites": ["runtime=flower", *server],
    }.get(option, [])
    if (group, option) == ("dataset", "sites"):
        kind = ["shape=[28,28]", "dtype=uint8", "classes=10"]
        extra += ["runtime.evaluation=sites", *(f"dataset.{text}" for text in kind)]
    sign = "+" if group in ("experiment", "debug") else ""
    config = parse(compose("config", overrides=[f"{sign}{group}={option}".lstrip("+"), *extra]))
    scheme = build_scheme(config)
    assert scheme.name == config.encryption.scheme
    assert config.seed == 0


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_an_option_says_what_it_is_in_its_first_lines(group, option):
    lines = (CONF / group / f"{option}.yaml").read_text().splitlines()
    assert any(line.startswith("# ") and not line.startswith("# @") for line in lines[:2])


def test_every_schema_has_a_file_and_every_key_of_it_is_shown_there():
    for group, options in SCHEMAS.items():
        for option, schema in options.items():
            text = (CONF / group / f"{option}.yaml").read_text()
            # One that sets other groups too shows its keys under its own name.
            indent = "  " if text.startswith("# @package _global_") else ""
            lines = [line.removeprefix(indent) for line in text.splitlines()]
            shown = {line.split(":")[0] for line in lines if line[:1].isalpha()}
            implied = {"_target_", "algorithm", "scheme", "sink", "custody"}
            keys = set(schema.__dataclass_fields__) - implied
            assert keys <= shown, f"{group}/{option}.yaml does not show {keys - shown}"


NEEDED = ("learning_rate", "_target_", "folder", "weight_unit")


def test_defaults_in_schema_and_file_agree():
    for group in ("federation", "encryption", "model", "runtime"):
        for option, schema in SCHEMAS[group].items():
            composed = compose("config", overrides=[f"{group}={option}"])[group]
            default = OmegaConf.structured(schema)
            for key in schema.__dataclass_fields__:
                if OmegaConf.is_missing(default, key):
                    assert key in NEEDED, (group, option, key)
                else:
                    assert composed[key] == default[key], (group, option, key)


def test_the_default_job_is_the_one_the_readme_describes():
    config = parse(compose("config"))
    assert config.federation.clients == config.federation.rounds == 10
    assert (config.encryption.scheme, config.keys.custody) == ("ckks", "authority")
    assert config.model.units == 128 and config.federation.algorithm == "fedavg"


@pytest.mark.parametrize(("model", "epochs", "target"), [("two_nn", 1, 0.97), ("cnn", 5, 0.99)])
def test_the_papers_experiments_are_the_papers(model, epochs, target):
    name = f"fedavg_paper_{model.replace('two_', '2')}"
    config = parse(compose("config", overrides=[f"experiment={name}", "split=shards"]))
    federation = config.federation
    assert (
        federation.clients,
        federation.cohort_size,
        federation.batch_size,
        federation.rounds,
    ) == (100, 10, 10, 1000)
    assert (federation.local_epochs, federation.target_accuracy) == (epochs, target)
    assert target_of(config.model).endswith(model) and config.encryption.scheme == "bfv"
    assert config.split.shards_per_client == 2


def test_the_dataset_subset_is_taken():
    config = parse(compose("config", overrides=["dataset=digits", "dataset.train_samples=50"]))
    assert len(load_dataset(config).y_train) == 50
