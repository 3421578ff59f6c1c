"""Noise fields by name: settings that a field lacks are refused by name."""

import pytest

from interslice.noise.named import FIELDS, named_noise, settings_of
from interslice.usage import UsageError


def test_a_setting_that_a_field_lacks_names_those_that_have_it():
    with pytest.raises(UsageError, match=r"noise slerp has no setting length \(.*angle\); ou, matern have it"):
        named_noise("slerp", length=10.0)
    with pytest.raises(UsageError, match=r"noise identical has no setting colour \(its settings: none\); no field has"):
        named_noise("identical", colour="red")


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_states_its_settings(name):
    assert set(settings_of(name)) <= {"angle", "share", "anchors", "spacing", "length", "field", "factor"}
    assert named_noise(name)


def test_settings_that_a_field_has_are_taken():
    assert named_noise("ou", length=10.0).length == 10.0
    assert named_noise("mixed", share=0.5).share == 0.5
