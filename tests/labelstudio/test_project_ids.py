import pytest

from walkcut.labelstudio.project_ids import parse_project_id

ODD: list[object] = [None, {}, "", "x", "4x", "-4", "4\n", [4], True, "9" * 30]


@pytest.mark.parametrize(
    ("sent", "project_id"),
    [
        (4, "4"),
        ("4", "4"),
        ("4.1795164114", "4"),
        ("007.5", "7"),
        ({"id": 4, "title": "5"}, "4"),
        *[(odd, "") for odd in ODD],
    ],
)
def test_a_project_has_one_id_however_it_is_sent(sent: object, project_id: str) -> None:
    assert parse_project_id(sent) == project_id
