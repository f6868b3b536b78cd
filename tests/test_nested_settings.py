from hcl.nested_settings import changed_settings


def test_changed_settings_are_named_unless_free():
    saved = {"seed": 7, "output": "a", "head": {"width": 768}}
    current = {"seed": 7, "output": "b", "head": {"width": 512}}
    assert changed_settings(saved, current, frozenset({"output"})) == ["head.width: 768 -> 512"]
