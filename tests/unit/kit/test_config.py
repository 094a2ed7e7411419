"""What a person is told of a configuration file that cannot be used."""

from pathlib import Path

import pytest
from rollcall_kit.config import ConfigError, load_config


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("feed: []", "feed: no such key"),
        ("- a", "the file: must be keys with values"),
        ("feeds: {}", "feeds: must be a list"),
        ("feeds: [{name: own, unsigned: true}]", "feeds.0.url: is missing"),
        ("feeds: [{name: Own, url: /x, unsigned: true}]", "not 'Own'"),
        ("feeds: [{name: own, url: /x}]", "feeds.0: give either `keyring: FILE`"),
        ("feeds: [{name: own, url: 'ftp://x', unsigned: true}]", "must begin with https://"),
        ("feeds: [{name: own, url: images, unsigned: true}]", "or be an absolute path"),
        ("feeds: [{name: own, url: /x, unsigned: true, interval: soon}]", "feeds.0.interval: "),
        ("feeds: [", "is not YAML"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "rollcall.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError) as told:
        load_config(str(path))

    assert str(told.value).startswith(f"{path}: ")
    assert said in str(told.value)


@pytest.mark.parametrize("url", ["https://x/y", "http://x", "file:///srv/images", "/srv/images"])
def test_every_kind_of_address_is_taken(tmp_path: Path, url: str) -> None:
    path = tmp_path / "rollcall.yaml"
    path.write_text(f"feeds: [{{name: own, url: '{url}', unsigned: true}}]")

    assert load_config(str(path)).feeds[0].url == url
