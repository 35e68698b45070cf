from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.builders.bulk import write_image
from tests.builders.fake_label_studio import FakeLabelStudio
from tests.builders.image_files import encode_image
from walkcut.bulk.items import ItemFailure, Skipped
from walkcut.bulk.sources.scan import read_sources
from walkcut.bulk.sources.upload import upload_images
from walkcut.errors import ImageError, LabelStudioError
from walkcut.images import FetchPolicy


def upload(studio: FakeLabelStudio, *sources: object) -> list[ItemFailure | Skipped]:
    return list(upload_images(read_sources([*map(str, sources)]), studio, "3", "photo.url", FetchPolicy()))


def test_images_are_uploaded_once_and_the_others_are_named(tmp_path: Path) -> None:
    path = write_image(tmp_path / "in" / "a b.png")
    image = Image.new("RGB", (20, 20))
    (tmp_path / "in" / "c.dat").write_bytes(encode_image(image, "JPEG"))
    (tmp_path / "in" / "d.avif").write_bytes(encode_image(image, "AVIF"))
    (tmp_path / "in" / "e.txt").touch()
    studio = FakeLabelStudio([])
    for _ in range(2):
        failure, skipped = upload(studio, tmp_path / "in", "https://e.org/f.png")
        assert isinstance(failure, ItemFailure)
        assert (failure.key, failure.stage) == ("upload/d", "upload")
        assert failure.reason == "Label Studio takes no upload of this format (AVIF): convert it to JPEG or PNG"
        assert isinstance(skipped, Skipped)
    assert [name for name, _ in studio.uploads] == ["a b.png", "c.dat.jpg"]
    assert studio.uploads[0][1] == path.read_bytes()
    assert [task["data"]["photo"]["url"] for task in studio.tasks.values()] == [
        "/data/upload/3/1-a b.png",
        "/data/upload/3/2-c.dat.jpg",
        "https://e.org/f.png",
    ]


def test_a_killed_upload_makes_no_task_twice(tmp_path: Path) -> None:
    class Killed(FakeLabelStudio):
        kills = 2

        def add_task(self, project: str, data: Mapping[str, Any]) -> None:
            if self.kills == 2:
                self.kills = 1
                raise LabelStudioError("gone before the task")
            super().add_task(project, data)
            if self.kills == 1:
                self.kills = 0
                raise LabelStudioError("gone after the task")

    for index in range(3):
        write_image(tmp_path / f"{index}.png")
    studio = Killed([])
    for _ in range(2):
        with pytest.raises(LabelStudioError):
            upload(studio, tmp_path)
    assert upload(studio, tmp_path) == []
    sources = [task["data"]["walkcut_source"] for task in studio.tasks.values()]
    assert sources == [str(tmp_path / f"{index}.png") for index in range(3)]


def test_a_file_that_label_studio_refuses_costs_no_other(tmp_path: Path) -> None:
    class Refusing(FakeLabelStudio):
        def upload_file(self, project: str, name: str, content: bytes) -> str:
            if name == "0.png":
                raise ImageError("Label Studio refuses it (too large)")
            return super().upload_file(project, name, content)

    for index in range(2):
        write_image(tmp_path / f"{index}.png")
    studio = Refusing([])
    (failure,) = upload(studio, tmp_path)
    assert isinstance(failure, ItemFailure)
    assert len(studio.tasks) == 1
