"""A run that is gone on with is data: what a stranger wrote into it runs no code, reads no file and
opens no store.

A checkpoint that a real run left is filled with what its owner did not choose. Each attack is
shown to work where the check is taken away.
"""

from __future__ import annotations

import functools
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from omegaconf import OmegaConf

import hyperlock
from hyperlock.errors import ConfigError
from hyperlock.experiment import directory as directories
from hyperlock.experiment import resume, taken
from hyperlock.experiment.checkpoint import load, save
from hyperlock.settings.compose import compose
from hyperlock.settings.schema import SCHEMAS, Config
from tests.test_cli import environment
from tests.warm import Warm

JOB = (
    "dataset=digits", "dataset.train_samples=300", "model=logistic", "encryption=none",
    "tracking=none", "federation.clients=3", "federation.rounds=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that a user made."""
    root = tmp_path_factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYPERLOCK_ROOT", str(root))
        hyperlock.run(*JOB, f"hydra.run.dir={root}/one")
    return root / "one"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder."""
    monkeypatch.setenv("HYPERLOCK_ROOT", str(tmp_path / "project"))
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


class Payload:
    """Makes a file where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.file), "w")


@pytest.fixture
def stranger(finished: Path, root: Path, tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """A stranger's directory, and in it a checkpoint, a pickle and an option for a model."""
    theirs = tmp_path / "theirs"
    shutil.copytree(finished, theirs)
    theirs.chmod(0o700)
    (theirs / "x.pkl").write_bytes(pickle.dumps(Payload(tmp_path / "executed")))
    (theirs / "model").mkdir()
    code = f"{{_target_: joblib.load, filename: {theirs}/x.pkl}}"
    text = f"_target_: hydra.utils.instantiate\nconfig: {{_target_: builtins.dict, x: {code}}}\n"
    (theirs / "model" / "evil.yaml").write_text(text)
    (theirs / ".claim").unlink()

    def fill(*overrides: str, settings: Mapping[str, str] = MappingProxyType({})) -> Path:
        state = load(theirs)
        added = [text.replace("HERE", str(theirs)) for text in overrides]
        kept = [text for text in state.overrides if not added or "model" not in text]
        here = {key: value.replace("HERE", str(theirs)) for key, value in settings.items()}
        state = replace(state, overrides=[*kept, *added], settings=state.settings | here)
        save(theirs, state)
        return theirs

    yield fill


@functools.cache
def defaults() -> Any:
    """Composed once, for composing takes longer than all else here."""
    return compose(())[0]


def begun(resumed: str, *overrides: str, folder: Path | None = None) -> Any:
    """As the command begins a run, without playing it."""
    settings = defaults().copy()
    settings.resume = resumed.removeprefix("resume=")
    settings.paths.root = os.environ["HYPERLOCK_ROOT"]
    typed = (resumed, *overrides)
    return resume.begin(settings, Path("none"), typed, lambda texts: compose(texts, folder)[0])


def unchecked(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint decides all by itself."""
    patch.setattr(resume, "taken", lambda named, state, *_: taken.Taken(state.overrides))
    patch.setattr(resume, "may_set", lambda *_: True)
    patch.setattr(resume, "is_option", lambda *_: True)


CODE = {
    "in a value": (
        "model=own", "model._target_=hydra.utils.instantiate",
        "+model.config={_target_:builtins.dict,x:{_target_:joblib.load,filename:HERE/x.pkl}}",
    ),
    "in keys": (
        "model=own", "model._target_=hydra.utils.instantiate",
        "+model.config._target_=builtins.dict", "+model.config.x._target_=joblib.load",
        "+model.config.x.filename=HERE/x.pkl",
    ),
    "in a file on a search path": ("hydra.searchpath=['file://HERE']", "model=evil"),
    "in a file by its path": ("model=../../../../../../../../../..HERE/model/evil",),
}  # fmt: skip


@pytest.mark.parametrize("way", CODE)
def test_code_in_a_checkpoint_is_not_run(
    stranger: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    theirs = stranger(*CODE[way])
    on = (f"resume={theirs}", "federation.rounds=2")
    with pytest.raises(ConfigError, match=r"does not decide[\s\S]*give them again"):
        hyperlock.run(*on)
    assert not (tmp_path / "executed").exists()

    unchecked(monkeypatch)
    with suppress(Exception):
        hyperlock.run(*on)
    assert (tmp_path / "executed").exists(), "the attack is one"


def test_the_command_refuses_a_strangers_directory(
    forks: Warm, stranger: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it reads what is in it, be it given again or not."""
    theirs = stranger(*CODE["in a value"])
    theirs.chmod(0o777)
    given = (text.replace("HERE", str(theirs)) for text in CODE["in a value"])
    on = (f"resume={theirs}", "federation.rounds=2", *given)
    code, output = forks.run(*on, cwd=tmp_path, env=environment(tmp_path))
    assert code == 1 and output.count("ERROR") == 1 and "others than its owner may write" in output
    assert not (tmp_path / "executed").exists() and not (theirs / ".claim").exists()

    monkeypatch.setattr(directories, "_refuse_others", lambda *_: None)
    with suppress(Exception):
        hyperlock.run(*on)
    assert (tmp_path / "executed").exists(), "the attack is one"


# What a checkpoint says it was composed with, and what it says its settings were.
OTHERS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "model._target_": (("model=own", "model._target_=hyperlock.process.finished"), {}),
    "dataset.path": (("dataset=npz", "dataset.path=/etc/passwd"), {"dataset.path": "/etc/passwd"}),
    "tracking.uri": (("tracking=mlflow", "tracking.uri=sqlite:////tmp/other.db"), {}),
    "paths.data": (("paths.data=/etc",), {"paths.data": "/etc"}),
    "paths.outputs": (("paths.outputs=HERE/../up",), {"paths.outputs": "HERE/../up"}),
    "task_name": (("task_name=${oc.env:HOME}",), {"task_name": os.environ["HOME"]}),
    "hydra.run.dir": (("hydra.run.dir=/tmp/there",), {}),
    "keys.min_clients": (("~keys.min_clients=3",), {}),
    "federation.rounds": (("federation.rounds={_target_:a.b}",), {}),
}


@pytest.mark.parametrize("setting", OTHERS)
def test_files_stores_and_secrets_are_not_chosen_by_a_checkpoint(
    stranger: Callable[..., Path], setting: str
) -> None:
    """Control: where the user gives the same again, it is used."""
    overrides, settings = OTHERS[setting]
    theirs = stranger(*overrides, settings=settings)
    on = (f"resume={theirs}", "federation.rounds=2")
    with pytest.raises(ConfigError, match=rf"give them again: .*{setting}"), begun(*on):
        pass
    if setting not in ("keys.min_clients", "federation.rounds"):  # which no user could give
        again = [text.replace("HERE", str(theirs)) for text in overrides]
        with begun(*on, *again) as beginning:
            found = OmegaConf.select(beginning.composed, setting)
            value = settings.get(setting, again[-1].partition("=")[2])
            assert setting == "hydra.run.dir" or found == value.replace("HERE", str(theirs))


DEFAULTS = {
    "federation.algorithm": ("../../evil", "its federation is no option's name"),
    "task_name": ("${oc.env:HOME}", r"task_name was \$\{oc\.env:HOME\}, is train"),
    "dataset.path": ("/etc/passwd", r"dataset\.path was /etc/passwd, is \?\?\?"),
}


@pytest.mark.parametrize("setting", DEFAULTS)
def test_nor_by_what_it_says_the_defaults_were(
    stranger: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    value, said = DEFAULTS[setting]
    chosen = ("dataset=npz", "model=logistic") if setting == "dataset.path" else ()
    theirs = stranger(*chosen, settings={setting: value})
    on = (f"resume={theirs}", "federation.rounds=2")
    with pytest.raises(ConfigError, match=said), begun(*on):
        pass
    if setting.endswith(".path"):
        unchecked(monkeypatch)
        with begun(*on) as beginning:
            assert OmegaConf.select(beginning.composed, setting) == value, "the attack is one"


def test_a_link_out_of_the_project_is_not_the_projects(
    stranger: Callable[..., Path], root: Path
) -> None:
    (root / "out").symlink_to("/etc")
    path = f"{root}/out/x.npz"
    overrides = ("dataset=npz", f"dataset.path={path}")
    theirs = stranger(*overrides, settings={"dataset.path": path, "paths.root": str(root)})
    on = (f"resume={theirs}", "federation.rounds=2")
    with pytest.raises(ConfigError, match="give them again"), begun(*on):
        pass
    (root / "out").unlink()
    with begun(*on) as beginning:
        assert beginning.composed.dataset.path == path


def test_what_is_pasted_from_the_error_runs_nothing_in_a_shell(
    stranger: Callable[..., Path],
) -> None:
    theirs = stranger("model._target_=a$(touch x)\x1b[2J")
    with pytest.raises(ConfigError) as error, begun(f"resume={theirs}"):
        pass
    assert r"'model._target_=a$(touch x)\x1b[2J'" in str(error.value)


MODEL = """
import keras


def mine(shape, classes, width, activation):
    hidden = keras.layers.Dense(width, activation=activation)
    layers = [keras.Input(shape), keras.layers.Flatten(), hidden, keras.layers.Dense(classes)]
    return keras.Sequential(layers)
"""


def test_ones_own_function_goes_on_where_it_is_given_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "minemodel.py").write_text(MODEL)
    monkeypatch.syspath_prepend(root)
    own = ("model=own", "model._target_=minemodel.mine", "+model.width=5", "+model.activation=relu")
    job = (*(text for text in JOB[:-1] if "model" not in text), *own)
    hyperlock.run(*job, "federation.rounds=1", f"hydra.run.dir={root}/one")
    on = (f"resume={root}/one", "federation.rounds=2")
    again = ("model._target_=minemodel.mine", "+model.activation=relu")
    for given in ((), again[:1], again[1:]):
        with pytest.raises(ConfigError) as error, begun(*on, *given):
            pass
        missing = " ".join(text for text in again if text not in given)
        assert str(error.value).endswith(f"give them again: resume={root}/one {missing}")
    with pytest.raises(ConfigError, match=r"relu2 would change"), begun(*on, f"{again[1]}2"):
        pass
    report = hyperlock.run(*on, *again)
    assert report.rounds == 2
    assert hyperlock.run(*job, "federation.rounds=2").weights.tobytes() == report.weights.tobytes()
    sys.modules.pop("minemodel")


def test_the_projects_own_functions_need_not_be_given_again(stranger: Callable[..., Path]) -> None:
    """Each in its group: the same in another one is none of its."""
    fedavg = "hyperlock.learning.algorithms.fedavg"
    state = load(theirs := stranger())
    save(theirs, replace(state, overrides=[*JOB, f"federation._target_={fedavg}"]))
    with begun(f"resume={theirs}", "federation.rounds=2") as beginning:
        assert beginning.composed.federation._target_ == fedavg
    save(theirs, replace(state, overrides=[*JOB, f"model._target_={fedavg}"]))
    with pytest.raises(ConfigError, match="give them again"), begun(f"resume={theirs}"):
        pass


def test_a_search_path_that_is_given_again_is_searched(stranger: Callable[..., Path]) -> None:
    """The same by `--config-dir`: what is there is its owner's choice."""
    theirs = stranger("model=logistic", "split=mine")
    options = theirs.parent / "mine"
    (options / "split").mkdir(parents=True)
    (options / "split" / "mine.yaml").write_text("defaults: [dirichlet]\nalpha: 0.3\n")
    on = (f"resume={theirs}", "federation.rounds=2")
    with begun(*on, f"hydra.searchpath=['file://{options}']") as beginning:
        assert beginning.composed.split.alpha == 0.3
    with begun(*on, folder=options) as beginning:
        assert beginning.composed.split.alpha == 0.3
    with pytest.raises(ConfigError, match="the same --config-dir"), begun(*on):
        pass


def test_a_directory_that_a_record_names_is_trusted_no_more(
    stranger: Callable[..., Path], empty_store: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write to the store can name any directory in a run's tag."""
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_store, root)
    client = mlflow.MlflowClient(f"sqlite:///{root}/mlflow.db")
    theirs = stranger(*CODE["in a value"])
    run = client.create_run(client.create_experiment("it"), tags={"directory": str(theirs)})
    on = (f"resume={run.info.run_id}", "federation.rounds=2")

    # A stranger's, one of the user's other runs, and one with code in it.
    theirs.chmod(0o777)
    with pytest.raises(ConfigError, match="others than its owner may write"), begun(*on):
        pass
    theirs.chmod(0o700)
    with pytest.raises(ConfigError, match="is another run's"), begun(*on):
        pass
    save(theirs, replace(load(theirs), run_id=run.info.run_id))
    with pytest.raises(ConfigError, match=r"give them again: .*_target_"), begun(*on):
        pass
    plain = replace(load(theirs), overrides=list(JOB))
    save(theirs, plain)
    with begun(*on) as beginning:
        assert beginning.directory == theirs


def test_every_setting_that_is_a_text_is_a_word_or_a_path() -> None:
    """One that is new is either known to be no more than a word, or has to be given again."""
    texts = {name for name, field in Config.__dataclass_fields__.items() if "str" in field.type}
    for group, options in SCHEMAS.items():
        for schema in options.values():
            fields = schema.__dataclass_fields__.values()
            texts |= {f"{group}.{f.name}" for f in fields if "str" in f.type}
    code_and_stores = {f"{group}._target_" for group in SCHEMAS} | {"tracking.uri", "resume"}
    assert texts - taken._WORDS - taken._PATHS - code_and_stores == {"federation.options"}
