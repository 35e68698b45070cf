from tests.builders.masks import drawing
from walkcut.labelstudio.shapes import keypoint


def test_a_point_is_a_disc_of_its_width() -> None:
    assert drawing(keypoint.decode({"x": 50, "y": 50, "width": 60}, (5, 5))) == [
        ".....", ".###.", ".###.", ".###.", ".....",
    ]  # fmt: skip


def test_a_point_is_a_pixel_at_least_within_the_image() -> None:
    assert drawing(keypoint.decode({"x": 100, "y": 0, "width": 0}, (2, 3))) == ["..#", "..."]
    assert not keypoint.decode({"x": 150, "y": 0, "width": 1}, (2, 3)).any()
